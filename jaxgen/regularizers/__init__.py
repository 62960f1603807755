"""Penalties on weights, activations and input gradients.

w = filter_matrix(kernel)                                # HWIO -> [d, k], filters in columns
loss += 1e-2 * soft_orthogonality(w)
loss += 1e-2 * convolution_orthogonality(kernel, stride) # of the whole convolution
sigma, v = srip(w, v)                                    # initially v = srip_vector(key, w)
loss += self_orthogonality(sign_correlations(y), l1=1.0, l2=1.0)
x = interpolate(key, real, fake)
normalized, u = spectral_normalize(params, u)            # initially spectral_vectors(key, params)
loss += 10 * jnp.mean(one_centered_gradient_penalty(lambda x: net.apply(params, x), x))
"""

from jaxgen.regularizers.clipping import clip_weights
from jaxgen.regularizers.convolution import convolution_orthogonality
from jaxgen.regularizers.gradient_penalty import (
    gradient_power_penalty,
    one_centered_gradient_penalty,
    one_sided_gradient_penalty,
    zero_centered_gradient_penalty,
)
from jaxgen.regularizers.orthogonality import (
    filter_matrix,
    mutual_coherence,
    off_diagonal,
    pairwise_angles,
    pairwise_cosines,
    soft_orthogonality,
    srip,
    srip_vector,
    unit_columns,
)
from jaxgen.regularizers.points import (
    dragan_points,
    interpolate,
    interpolate_pooled,
    interpolate_within,
)
from jaxgen.regularizers.self_orthogonality import (
    arcsine_correlations,
    self_orthogonality,
    sign_correlations,
)
from jaxgen.regularizers.spectral import spectral_normalize, spectral_vectors

__all__ = [
    "arcsine_correlations",
    "clip_weights",
    "convolution_orthogonality",
    "dragan_points",
    "filter_matrix",
    "gradient_power_penalty",
    "interpolate",
    "interpolate_pooled",
    "interpolate_within",
    "mutual_coherence",
    "off_diagonal",
    "one_centered_gradient_penalty",
    "one_sided_gradient_penalty",
    "pairwise_angles",
    "pairwise_cosines",
    "self_orthogonality",
    "sign_correlations",
    "soft_orthogonality",
    "spectral_normalize",
    "spectral_vectors",
    "srip",
    "srip_vector",
    "unit_columns",
    "zero_centered_gradient_penalty",
]
