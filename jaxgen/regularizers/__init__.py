"""Penalties on weights, activations and input gradients."""
