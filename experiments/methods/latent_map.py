"""A map of latents: their first two principal components, coloured by class or cluster."""

import numpy as np

from experiments.lib.pictures import figure


def latent_map(latents, names, of: str, what: str = "test images") -> np.ndarray:
    """Points in the plane in which the latents vary most, as an image.

    Args:
      latents: [N, D].
      names: [N], of classes or clusters; a colour each.
      of: what the names are, such as "class".
      what: the latents are of.

    Returns:
      [H, W, 3], floating point in [0, 1].
    """
    points = principal(np.asarray(latents))

    def scatter(drawing):
        axis = drawing.subplots()
        for number, name in enumerate(np.unique(names)):
            own = points[names == name]
            axis.scatter(*own.T, s=8, color=f"C{number}", label=f"{name}")
        axis.set(
            title=f"latents of {len(points)} {what}, coloured by {of}",
            xlabel="first principal component",
            ylabel="second principal component",
        )
        drawing.legend(loc="outside right upper", title=of)

    return figure(scatter, 7, 6)


def principal(latents: np.ndarray) -> np.ndarray:
    """Coordinates along the first two principal components: [N, D] -> [N, 2]; of D = 1, y is 0."""
    finite = np.where(np.isfinite(latents), latents, 0)
    left, size, _ = np.linalg.svd(finite - finite.mean(axis=0), full_matrices=False)
    points = (left * size)[:, :2]
    return np.pad(points, [(0, 0), (0, 2 - points.shape[1])])
