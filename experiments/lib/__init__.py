"""The plumbing that experiments share; of the maths only how several of them fit and judge."""
