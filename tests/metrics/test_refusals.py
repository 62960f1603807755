"""What the room refuses, in one line that names the argument, its value and what was expected."""

import jax
import numpy as np
import pytest

from jaxgen import metrics as m

KEY = jax.random.key(0)
X, Y = np.random.default_rng(0).normal(size=(2, 40, 3))
IMAGES = np.random.default_rng(1).uniform(size=(2, 32, 32, 1))
SMALL = np.zeros((2, 28, 28, 1))
RING = np.ones((8, 2))
LABELS = np.arange(40) % 4
TABLE = np.eye(3)
BAD_COUNTS = [
    (r"^counts .*; expected .*>= 0", np.array([1, -1])),
    (r"^counts .*nan.*; expected", np.array([1.0, np.nan])),
    (r"^counts \(\); expected", 3),
]


def fit(x, **options):
    return m.gaussian_fit(m.feature_sums(x, np.zeros(x.shape[1])), np.zeros(x.shape[1]), **options)


def sliced(*images, **options):
    return m.pyramid_sliced_wasserstein(KEY, *images, **options)


def kernel(x, y, subsets=2, size=10):
    return m.kernel_distance(KEY, x, y, subsets=subsets, size=size)


def votes(x=X, labels=LABELS, queries=Y, k=3, num_classes=4, **options):
    return lambda: m.knn_votes(x, labels, queries, k, num_classes, **options)


def similar(function, x=IMAGES, y=IMAGES, low=0, high=1, **options):
    return lambda: function(x, y, low=low, high=high, **options)


REFUSES = [
    (r"^sums of 3 examples; expected at least 4", lambda: fit(X[:3])),
    (r"^sums of 3 examples; expected at least 7", lambda: fit(X[:3], min_examples=7)),
    (r"^min_examples 1; expected an integer >= 2", lambda: fit(X[:3], min_examples=1)),
    (r"^sums with NaN or infinity; expected", lambda: fit(np.where(X > 2, np.nan, X))),
    (
        r"^shift \(\); expected \[D\] as for the sums \(3,\)",
        lambda: m.gaussian_fit(m.feature_sums(X, X[0]), 0.0),
    ),
    (r"^features \(3,\); expected", lambda: m.feature_sums(X[0], X[0])),
    (r"^shift \(2,\); expected", lambda: m.feature_sums(X, np.zeros(2))),
    (r"^where \(3,\); expected", lambda: m.feature_sums(X, X[0], np.ones(3, bool))),
    (
        r"^fake \(\(2,\), \(2, 2\)\); expected",
        lambda: m.frechet_distance(fit(X), fit(Y[:, :2])),
    ),
    (
        r"^real \(\(3,\), \(3,\)\); expected",
        lambda: m.frechet_distance(m.GaussianFit(X[0], X[0]), fit(Y)),
    ),
    (r"^fake \(19, 3\); expected at least 20", lambda: kernel(X, X[:19])),
    (r"^real \(20, 3\); expected at least 22", lambda: kernel(X[:20], X[:20], size=11)),
    (r"^subsets 1; expected", lambda: kernel(X, X, subsets=1)),
    (r"^size 1; expected", lambda: kernel(X, X, size=1)),
    (r"^size 2\.5; expected an integer", lambda: kernel(X, X, size=2.5)),
    (r"^fake \(40, 2\); expected", lambda: kernel(X, X[:, :2])),
    (r"^sigma 0; expected", lambda: m.mode_counts(RING, RING, 0)),
    (r"^sigma \(8,\); expected a scalar", lambda: m.mode_counts(RING, RING, np.ones(8))),
    (r"^sigmas -1; expected", lambda: m.mode_counts(RING, RING, 0.1, sigmas=-1)),
    (
        r"^samples \(8, 1\).*; expected .* for centers \(8, 2\)",
        lambda: m.mode_counts(RING, RING[:, :1], 0.1),
    ),
    (r"^centers \(2,\); expected points", lambda: m.mode_counts(RING[0], RING, 0.1)),
    *(
        (message, lambda f=f, counts=counts: f(counts))
        for f in (m.captured_modes, m.kl_to_uniform)
        for message, counts in BAD_COUNTS
    ),
    (r"^k 30; expected", lambda: m.precision_recall(X, Y[:30], k=30)),
    (r"^k 40; expected", lambda: m.density_coverage(X, Y, k=40)),
    (r"^k 0; expected", lambda: m.density_coverage(X, Y, k=0)),
    (r"^k 1\.5; expected an integer", lambda: m.density_coverage(X, Y, k=1.5)),
    (r"^block 0; expected", lambda: m.neighbour_radii(X, 2, block=0)),
    (r"^x \(3,\); expected", lambda: m.neighbour_radii(X[0], 2)),
    (r"^real \(40,\); expected points", lambda: m.precision_recall(X[:, 0], Y)),
    (
        r"^fake \(40, 2\).*; expected .* for real \(40, 3\)",
        lambda: m.density_coverage(X, Y[:, :2]),
    ),
    (
        r"^x \(2, 28, 28, 1\).*; expected .*multiples of 8",
        lambda: m.laplacian_pyramid(SMALL, 4),
    ),
    (r"^x \(28, 28\); expected", lambda: m.laplacian_pyramid(SMALL[0, ..., 0], 1)),
    (r"^levels 0; expected", lambda: m.laplacian_pyramid(SMALL, 0)),
    (r"^levels 1\.5; expected an integer", lambda: m.laplacian_pyramid(SMALL, 1.5)),
    (r"fake \(1, 28, 28, 1\)", lambda: sliced(SMALL, SMALL[:1])),
    (r"real \(28, 28, 1\)", lambda: sliced(SMALL[0], SMALL[0])),
    (
        r"real \(2, 28, 28, 1\); expected H and W >= 56",
        lambda: sliced(SMALL, SMALL, levels=4),
    ),
    *(
        (rf"^{name} 0; expected", lambda name=name: sliced(SMALL, SMALL, **{name: 0}))
        for name in ("levels", "patches", "projections", "repeats")
    ),
    *(
        row
        for f in (m.ssim, m.ms_ssim)
        for row in [
            (r"^high 0; expected a finite number > 0", similar(f, high=0)),
            (r"^real -.*; expected .* >= 0", similar(f, 2 * IMAGES - 1)),
            (r"^fake .*; expected .* <= 1", similar(f, y=255 * IMAGES)),
            (r"^fake \(1, 32, 32, 1\); expected", similar(f, y=IMAGES[:1])),
            (r"^real \(32, 32, 1\); expected", similar(f, IMAGES[0], IMAGES[0])),
        ]
    ),
    (
        r"^real \(2, 28, 28, 1\).*; expected .*multiples of 16",
        similar(m.ms_ssim, SMALL, SMALL),
    ),
    (
        r"^labels \(39,\); expected the shape of clusters \(40,\)",
        lambda: m.contingency(LABELS, LABELS[1:], 4, 4),
    ),
    (
        r"^clusters float32\[40\]; expected integers \[N\]",
        lambda: m.contingency(LABELS.astype(np.float32), LABELS, 4, 4),
    ),
    (r"^labels .*\[4, 10\]; expected", lambda: m.contingency(LABELS, LABELS.reshape(4, 10), 4, 4)),
    (r"^num_clusters 0; expected", lambda: m.contingency(LABELS, LABELS, 0, 4)),
    (r"^num_labels 2\.5; expected", lambda: m.contingency(LABELS, LABELS, 4, 2.5)),
    *(
        row
        for f in (
            m.purity,
            m.hungarian_accuracy,
            m.normalized_mutual_information,
            m.adjusted_rand_index,
            m.used_clusters,
        )
        for row in [
            (r"^table \(3,\); expected counts \[K, C\]", lambda f=f: f(TABLE[0])),
            (r"^table \(0, 3\); expected", lambda f=f: f(TABLE[:0])),
            (r"^table (.|\n)*; expected .*>= 0", lambda f=f: f(-TABLE)),
            (r"^table (.|\n)*nan(.|\n)*; expected", lambda f=f: f(TABLE * np.nan)),
        ]
    ),
    (r"^share 1\.5; expected", lambda: m.used_clusters(TABLE, 1.5)),
    (r"^share \(3,\); expected a scalar", lambda: m.used_clusters(TABLE, np.ones(3) / 2)),
    (r"^partitions 1; expected .*>= 2", lambda: m.agreement(LABELS[None], 4)),
    (r"^partitions .*\[40\]; expected integers \[S, N\]", lambda: m.agreement(LABELS, 4)),
    (r"^k 0; expected", votes(k=0)),
    (r"^k 41; expected .*<= 40", votes(k=41)),
    (r"^k 1\.5; expected an integer", votes(k=1.5)),
    (r"^num_classes 0; expected", votes(num_classes=0)),
    (r"^block 0; expected", votes(block=0)),
    (r"^labels .*\[39\]; expected integers \[40\]", votes(labels=LABELS[1:])),
    (r"^labels float32\[40\]; expected", votes(labels=LABELS.astype(np.float32))),
    (r"^queries \(40, 2\).*; expected .* for features \(40, 3\)", votes(queries=Y[:, :2])),
    (r"^features \(40,\); expected points", votes(x=X[:, 0])),
    (r"^weights .*; expected", similar(m.ms_ssim, SMALL, SMALL, weights=(0.5, 0))),
    (r"^scales 0; expected", similar(m.ms_ssim, SMALL, SMALL, weights=())),
]


@pytest.mark.parametrize(("message", "call"), REFUSES)
def test_refuses(message, call):
    with pytest.raises(ValueError, match=message):
        call()
