"""Products as an accelerator computes them by default, on the CPU.

By default a TPU rounds the operands of an f32 product to bf16, and a recent GPU to TF32; a product
with precision="highest" keeps them. `ARITHMETIC=bf16 python -m pytest tests/flows` (or tf32) rounds
them in the same way, so that a result which needs exact products fails here first.

This is the only file of the project that uses JAX's private names: no public function replaces the
lowering of a primitive. If a new release of JAX breaks it, nothing else is affected.
"""

import jax
import jax.numpy as jnp
from jax._src.interpreters import mlir
from jax.extend.core import primitives

# Exponent and mantissa bits of what the operands are rounded to.
_BITS = {"bf16": (8, 7), "tf32": (8, 10)}


def round_operands(arithmetic: str) -> None:
    """Rounds the operands of f32 products and convolutions with default precision, on the CPU."""
    if arithmetic not in _BITS:
        raise ValueError(f"ARITHMETIC {arithmetic}; expected f32, bf16 or tf32")
    for primitive in (primitives.dot_general_p, primitives.conv_general_dilated_p):
        _replace(primitive, _BITS[arithmetic])


def _replace(primitive, bits) -> None:
    exact = mlir._platform_specific_lowerings["cpu"].get(primitive) or mlir._lowerings[primitive]
    exact = getattr(exact, "rule", exact)

    def rounded(*operands, **params):
        operands = [jax.lax.reduce_precision(x, *bits) for x in operands]
        return primitive.bind(*operands, **{**params, "precision": jax.lax.Precision.HIGHEST})

    through_rounded = mlir.lower_fun(rounded, multiple_results=False)

    def rule(ctx, *operands, precision=None, **params):
        lower = through_rounded if _is_default(precision, ctx.avals_in) else exact
        return lower(ctx, *operands, precision=precision, **params)

    mlir.register_lowering(primitive, rule, platform="cpu")


def _is_default(precision, avals) -> bool:
    chosen = precision if isinstance(precision, tuple) else (precision,)
    default = all(p in (None, jax.lax.Precision.DEFAULT) for p in chosen)
    return default and all(aval.dtype == jnp.float32 for aval in avals)
