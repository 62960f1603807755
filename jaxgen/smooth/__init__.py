"""Smooth stand-ins for functions without a useful gradient."""
