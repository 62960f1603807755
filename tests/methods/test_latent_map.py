"""The map of latents: principal components, and a colour for each name."""

import numpy as np

from experiments.methods.latent_map import latent_map, principal


def test_principal_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA  # noqa: PLC0415

    latents = np.random.default_rng(0).standard_normal((50, 5)) * [3, 1, 0.5, 2, 0.1] + 7
    ours, theirs = principal(latents), PCA(2).fit_transform(latents)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-9)


def test_a_single_latent_lies_on_a_line():
    points = principal(np.arange(4.0)[:, None])
    np.testing.assert_allclose(points[:, 1], 0)
    np.testing.assert_allclose(np.abs(points[:, 0]), [1.5, 0.5, 0.5, 1.5])


def test_each_name_has_a_colour():
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((40, 3))
    few = latent_map(latents, np.zeros(40, int), "class")
    more = latent_map(latents, np.arange(40) % 4, "class")

    def colours(image):
        pixels = np.unique(image.reshape(-1, 3), axis=0)
        return int((np.ptp(pixels, axis=1) > 0.5).sum())

    assert more.shape == few.shape == (600, 700, 3)
    assert colours(more) > colours(few)


def test_a_plane_is_found_again_and_nan_is_left_out():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)) * [5, 2]
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    points = principal(3 + plane @ turn[:2])
    distances = [np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (points, plane)]
    np.testing.assert_allclose(*distances, rtol=1e-6, atol=1e-6)
    assert np.std(points[:, 0]) > np.std(points[:, 1])
    assert principal(np.full((4, 1), np.nan)).shape == (4, 2)
