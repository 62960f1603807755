"""Structural similarity of images, single-scale and multi-scale."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arguments import require
from jaxgen.metrics.shapes import images

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ssim(real, fake, *, low: float, high: float):
    """Structural similarity of pairs of images, the mean of l c s over windows and channels.

    l = (2 m_x m_y + C_1) / (m_x^2 + m_y^2 + C_1), c s = (2 s_xy + C_2) / (s_x^2 + s_y^2 + C_2),
    C_i = (K_i L)^2, K = 0.01, 0.03, in 11 x 11 Gaussian windows (standard deviation 1.5) that lie
    fully inside the image. The weighted moments have no N / (N - 1) correction. Wang et al. 2004,
    IEEE Transactions on Image Processing 13. Channels are weighted equally; the paper has grey
    images only.

    l assumes intensities >= 0, so images are first mapped from [low, high] to [0, 1]. SSIM computed
    on images in [-1, 1] with L = 2 and no shift gives different values.

    Args:
      real: [B, H, W, C]; if H or W < 11, the window and its standard deviation shrink to fit.
      fake: [B, H, W, C].
      low: lower end of the range of the images, a Python number.
      high: upper end of that range, a Python number > low.

    Returns:
      [B], in [-1, 1], 1 iff the images are equal, up to rounding of about 1e-5 in f32.

    Raises:
      ValueError: high <= low, images are outside the range, or the shapes differ.
    """
    x, y = _unit(real, fake, low, high)
    luminance, structure = _terms(x, y)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def ms_ssim(real, fake, *, low: float, high: float, weights=WEIGHTS):
    """Multi-scale SSIM: product over scales j of mean(c s)_j^w_j, with mean(l c s) at the last.

    Wang, Simoncelli and Bovik 2003, Asilomar (equation 7 and the weights of its five scales). Each
    scale is the 2 x 2 mean of the previous one. The means over windows and the product over scales
    are per channel, followed by the mean over channels. Negative means are clamped to 0.

    As a diversity measure (Odena et al. 2017, arXiv 1610.09585), average it over random pairs of
    fakes and compare with pairs of reals; higher means less diverse. Compare only within one class.

    Args:
      real: [B, H, W, C], H and W multiples of 2^(scales - 1). Below 176 pixels the windows of the
        last of five scales shrink, as in the code of Karras et al. 2018; published values for
        small images depend on that.
      fake: [B, H, W, C].
      low: lower end of the range of the images, a Python number.
      high: upper end of that range, a Python number > low.
      weights: one exponent > 0 per scale, fine to coarse; use fewer for smaller images.

    Returns:
      [B], in [0, 1], 1 iff the images are equal, up to rounding of about 1e-5 in f32.

    Raises:
      ValueError: high <= low, images are outside the range, the shapes differ, H or W is not a
        multiple of 2^(scales - 1), a weight is <= 0, or there are none.
    """
    require(above=0, weights=weights)
    require(least=1, scales=len(weights))
    x, y = _unit(real, fake, low, high)
    factor = 2 ** (len(weights) - 1)
    if any(n % factor for n in x.shape[1:3]):
        raise ValueError(
            f"real {x.shape}; expected H and W multiples of {factor} for {len(weights)} scales"
        )
    product = jnp.ones((), x.dtype)
    for scale, weight in enumerate(weights):
        if scale:
            x, y = _halve(x), _halve(y)
        luminance, structure = _terms(x, y)
        last = scale == len(weights) - 1
        mean = jnp.mean(luminance * structure if last else structure, axis=(1, 2))
        product = product * jnp.where(mean <= 0, 0, jnp.where(mean <= 0, 1, mean) ** weight)
    return jnp.mean(product, axis=-1)


def _unit(real, fake, low, high):
    """Maps both images from [low, high] to [0, 1], after checks."""
    require(above=low, high=high)
    real, fake = images(real, fake)
    for extreme in (jnp.min, jnp.max):
        require(least=low, most=high, real=extreme(real), fake=extreme(fake))
    return (real - low) / (high - low), (fake - low) / (high - low)


def _terms(x, y):
    """l and c s in every window, [B, H', W', C]."""
    moments = _window_means(jnp.concatenate([x, y, x**2, y**2, x * y], axis=-1))
    mean_x, mean_y, square_x, square_y, mixed = jnp.split(moments, 5, axis=-1)
    var_x, var_y = square_x - mean_x**2, square_y - mean_y**2
    covariance = mixed - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * covariance + c2) / (var_x + var_y + c2)


def _window_means(x):
    """Gaussian window means, one banded matrix product per axis instead of 11 slices."""
    size = min(11, *x.shape[1:3])
    at = np.arange(size) - (size - 1) / 2
    window = np.exp(-0.5 * (at / (1.5 * size / 11)) ** 2)

    def band(n):
        rows = [np.pad(window / window.sum(), (i, n - size - i)) for i in range(n - size + 1)]
        return jnp.asarray(np.stack(rows), x.dtype)

    height, width = band(x.shape[1]), band(x.shape[2])
    x = jnp.einsum("ih,bhwc->biwc", height, x, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("jw,biwc->bijc", width, x, precision=jax.lax.Precision.HIGHEST)


def _halve(x):
    b, h, w, c = x.shape
    return jnp.mean(x.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))
