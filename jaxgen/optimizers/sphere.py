"""Riemannian gradient descent for unit vectors: every row (last axis) stays on the sphere.

    g_R = (I - x x^T) g,   x <- (x - eta g_R) / |x - eta g_R|

Bonnabel 2013 (arXiv 1111.5280). The parts can be chained with other transformations: project first,
then scale, and retract last. They apply to all leaves; use `optax.masked` or `optax.partition` to
exclude some.
"""

import jax
import jax.numpy as jnp
import optax

from jaxgen.arguments import at_least_f32
from jaxgen.optimizers.leaves import cast_updates, real_floats, scale_by_learning_rate
from jaxgen.optimizers.paths import named_leaves


def project_to_tangent() -> optax.GradientTransformation:
    """g_R = g - (x.g) x, the part of the gradient that is tangent to the sphere at x.

    Raises:
      ValueError: from `update`, no params, a scalar, or a complex update.
    """

    def project(g, x):
        return g - _dot(x, g) * x

    return _with_params(project)


def project_by_cosine() -> optax.GradientTransformation:
    """(1 + x.g / |g|) g_R: the tangent part, scaled by the cosine distance between x and -g.

    The step of JoSE (Meng et al. 2019, arXiv 1911.01196). The factor is 0 if x already points in
    the direction -g of steepest descent, 2 if it points the opposite way, and 1 if g = 0. Steps
    therefore vanish near the optimum: for a constant g, the angle to it decays like
    1 / sqrt(eta |g| t), whereas with `project_to_tangent` it decays exponentially.

    Raises:
      ValueError: from `update`, no params, a scalar, or a complex update.
    """

    def project(g, x):
        along = _dot(x, g)
        square = _dot(g, g)
        norm = jnp.sqrt(jnp.where(square > 0, square, 1))
        return (1 + along / norm) * (g - along * x)

    return _with_params(project)


def retract_to_sphere() -> optax.GradientTransformation:
    """u -> (x + u) / |x + u| - x, so that `optax.apply_updates` lands on the sphere.

    Place it last in a chain. The resulting norm is 1 up to rounding in the parameters' dtype,
    whatever it was before. A row with x + u = 0 becomes 0; the next nonzero u moves it back to the
    sphere.

    Raises:
      ValueError: from `update`, no params, a scalar, or a complex update.
    """

    def retract(u, x):
        moved = x + u
        square = _dot(moved, moved)
        norm = jnp.sqrt(jnp.where(square > 0, square, 1))
        return moved / norm - x

    return _with_params(retract)


def sphere_sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """Riemannian SGD on the sphere: x <- (x - eta g_R) / |x - eta g_R|.

    Args:
      learning_rate: eta, a number or a schedule.
    """
    rate = scale_by_learning_rate(learning_rate)
    return optax.chain(project_to_tangent(), rate, retract_to_sphere())


def jose_sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """JoSE's optimizer: `sphere_sgd` with the step of `project_by_cosine`.

    Args:
      learning_rate: eta, a number or a schedule.
    """
    rate = scale_by_learning_rate(learning_rate)
    return optax.chain(project_by_cosine(), rate, retract_to_sphere())


def _dot(x, y):
    return jnp.sum(x * y, axis=-1, keepdims=True)


def _with_params(function) -> optax.GradientTransformation:
    def update(updates, params):
        if params is None:
            raise ValueError("params None; expected the parameters in `update`")
        updates = real_floats(updates)
        for name, leaf in named_leaves(updates):
            if leaf.ndim == 0:
                raise ValueError(f"{name!r} has shape (); expected unit vectors [..., d]")
        new = jax.tree.map(lambda u, x: function(at_least_f32(u), at_least_f32(x)), updates, params)
        return cast_updates(new, updates, params)

    return optax.stateless(update)
