"""Distances between probability laws, and bounds on mutual information."""
