"""What the functions refuse, and what they say."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import smooth

X, LABELS = jnp.zeros((5, 3)), jnp.array([2, 0, 1, 1, 2])
FINITE = "; expected a finite number > 0"
ELEMENTWISE = (
    smooth.charbonnier,
    smooth.smooth_abs,
    smooth.smooth_floor,
    smooth.smooth_heaviside,
    smooth.smooth_relu,
    smooth.smooth_round,
    smooth.smooth_sign,
)
PROJECTIONS = (smooth.soft_rank, smooth.soft_rank_kl, smooth.soft_sort, smooth.soft_sort_kl)
SCORES = (
    *PROJECTIONS,
    smooth.boltzmann_max,
    smooth.mellowmax,
    smooth.pairwise_rank,
    smooth.smooth_max,
    smooth.smooth_min,
    smooth.smooth_norm,
    smooth.soft_argmax,
    smooth.soft_one_hot,
    smooth.soft_permutation,
    smooth.straight_through_one_hot,
)
TOP_K = (smooth.laplace_top_k, smooth.sigmoid_top_k)
ACCURACY, CROSS_ENTROPY = smooth.smooth_accuracy, smooth.generalized_cross_entropy_loss
WITH_TEMPERATURE = (
    *(partial(f, X) for f in ELEMENTWISE + SCORES),
    *(partial(f, X, 2) for f in TOP_K),
    *(partial(f, X, X) for f in (smooth.confusion_counts, smooth.smooth_maximum)),
    partial(smooth.smooth_minimum, X, X),
    partial(ACCURACY, X, LABELS),
)

REFUSES = [
    *(
        (rf"^temperature {t}{FINITE}", partial(f, temperature=t))
        for f in WITH_TEMPERATURE
        for t in (0.0, -1.0, np.nan, np.inf)
    ),
    *((rf"^scale {t}{FINITE}", partial(f, X, scale=t)) for f in PROJECTIONS for t in (0, np.nan)),
    *(
        (rf"^k {k}; expected a Python integer >= 1 and <= 3", partial(f, X, k))
        for f in TOP_K
        for k in (0, 4, -1, 2.0, True)
    ),
    *((r"^k 1; expected .* <= 0", partial(f, jnp.zeros(0), 1)) for f in TOP_K),
    (r"^k .*; expected a Python int", lambda: jax.jit(partial(smooth.sigmoid_top_k, X))(2)),
    (r"^labels int32\[2\]; expected integers \[5\]", partial(ACCURACY, X, LABELS[:2])),
    (r"^labels float32\[5\]; expected int", partial(ACCURACY, X, LABELS.astype(jnp.float32))),
    (r"^labels bool\[5\]; expected integers", partial(CROSS_ENTROPY, X, LABELS > 0)),
    (r"^logits \(5, 0\); expected at least one class", partial(ACCURACY, X[:, :0], LABELS)),
    (r"^logits \(5, 0\); expected at least one class", partial(CROSS_ENTROPY, X[:, :0], LABELS)),
    (r"^q 1.5; expected a finite number >= 0 and <= 1", partial(CROSS_ENTROPY, X, LABELS, 1.5)),
    (r"^q -0.1; expected a finite number >= 0 and <= 1", partial(CROSS_ENTROPY, X, LABELS, -0.1)),
    (r"^labels \(5,\); expected the shape \(5, 3\)", partial(smooth.f_beta_counts, X, LABELS)),
    (r"^labels \(5,\); expected the shape \(5, 3\)", partial(smooth.confusion_counts, X, LABELS)),
    (rf"^beta 0{FINITE}", partial(smooth.f_beta_counts, X, X, beta=0)),
]


@pytest.mark.parametrize(("message", "call"), REFUSES)
def test_refuses(message, call):
    with pytest.raises(ValueError, match=message):
        call()
