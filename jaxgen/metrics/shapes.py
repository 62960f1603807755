"""Checks of sets of points and of images."""

import jax.numpy as jnp

from jaxgen.arguments import at_least_f32


def points(**samples):
    """Returns each as [N, D] in at least f32; ValueError unless all have the same D."""
    arrays = {name: at_least_f32(x) for name, x in samples.items()}
    for name, x in arrays.items():
        if x.ndim != 2 or 0 in x.shape:
            raise ValueError(f"{name} {x.shape}; expected points [N, D], N and D >= 1")
    (first, like), *others = arrays.items()
    for name, x in others:
        if x.shape[1] != like.shape[1]:
            raise ValueError(f"{name} {x.shape}; expected [M, D] for {first} {like.shape}")
    return tuple(arrays.values())


def images(real, fake):
    """Returns both as [N, H, W, C] in at least f32; ValueError unless the shapes are equal."""
    real, fake = at_least_f32(real), at_least_f32(fake)
    if real.ndim != 4 or 0 in real.shape:
        raise ValueError(f"real {real.shape}; expected images [N, H, W, C]")
    if fake.shape != real.shape:
        raise ValueError(f"fake {fake.shape}; expected the shape of real, {real.shape}")
    return real, fake


def nan_unless_finite(value, *samples):
    """value, or NaN where an entry of any sample is NaN or infinite."""
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in samples]))
    return jnp.where(finite, value, jnp.nan)
