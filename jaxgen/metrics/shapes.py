"""Checks of what a metric is given: two sets of points, or two sets of images."""

from jaxgen.arguments import at_least_f32


def points(where: str, real, fake):
    """Both as [N, D] and [M, D] in at least f32; ValueError names the function otherwise."""
    real, fake = at_least_f32(real), at_least_f32(fake)
    if real.ndim != 2 or 0 in real.shape:
        raise ValueError(f"{where}: real {real.shape}; expected points [N, D]")
    if fake.ndim != 2 or fake.shape[1] != real.shape[1] or 0 in fake.shape:
        raise ValueError(f"{where}: fake {fake.shape}; expected [M, D] for real {real.shape}")
    return real, fake


def images(where: str, real, fake):
    """Both as [N, H, W, C] of one shape in at least f32; ValueError names the function."""
    real, fake = at_least_f32(real), at_least_f32(fake)
    if real.ndim != 4 or 0 in real.shape:
        raise ValueError(f"{where}: real {real.shape}; expected images [N, H, W, C]")
    if fake.shape != real.shape:
        raise ValueError(f"{where}: fake {fake.shape}; expected the shape of real, {real.shape}")
    return real, fake
