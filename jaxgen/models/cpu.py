"""Forms of convolutions that suit XLA's CPU backend, and the choice between two definitions.

XLA's CPU backend computes convolutions slowly: inside `lax.scan` tens of times slower than matrix
products of shifted inputs, and outside of it the gradients of strided convolutions are slow. The
functions here compute the same convolutions by matrix products. `by_platform` adds such a form to
the plain definition.

The form is chosen when a program is lowered, so a program that is compiled for a TPU on a machine
without one gets the plain definition. `lax.platform_dependent` chooses at the same time, but it is
a `lax.cond`, and the derivative of a `cond` keeps residuals for every branch. Here both definitions
are parameters of one bilinear primitive, and its derivatives are the same primitive with other
definitions. So derivatives of every order keep the operands and nothing else.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir


def by_platform(cpu: Callable) -> Callable:
    """Decorate a bilinear function with the form that it takes on a CPU.

    @by_platform(cpu=fast_on_a_cpu)
    def product(x, kernel):
        return plain_definition(x, kernel)

    Args:
      cpu: (x, kernel) -> y, the same function as the decorated one.

    Returns:
      A decorator of (x, kernel) -> y, which is linear in each of its two arrays.
    """

    def decorate(plain: Callable) -> Callable:
        @jax.jit  # traces the definitions once per shape, also where it is called outside of jit
        @functools.wraps(plain)
        def function(x, kernel):
            return _bind((plain, cpu), x, kernel)

        return function

    return decorate


def _bind(definitions, *operands):
    plain, cpu = [jax.make_jaxpr(definition)(*operands) for definition in definitions]
    return _bilinear.bind(*operands, plain=plain, cpu=cpu)


def _call(jaxpr, *operands):
    (result,) = jaxpr_as_fun(jaxpr)(*operands)
    return result


def _transpose(place, cotangent, *operands, plain, cpu):
    """The transpose in the operand at `place`: bilinear in the other operand and the cotangent."""

    def transposed(jaxpr):
        def definition(*given):
            def linear(operand):
                return _call(jaxpr, *[operand if i == place else x for i, x in enumerate(given)])

            # `linear` is its own derivative. Asking for that applies the rules of `custom_jvp`.
            def derivative(operand):
                return jax.jvp(linear, (operand,), (operand,))[1]

            (result,) = jax.linear_transpose(derivative, operands[place].aval)(given[place])
            return result

        return definition

    given = [cotangent if i == place else x for i, x in enumerate(operands)]
    return _bind((transposed(plain), transposed(cpu)), *given)


def _batch(operands, axes, *, plain, cpu):
    definitions = [jax.vmap(functools.partial(_call, jaxpr), axes) for jaxpr in (plain, cpu)]
    return _bind(definitions, *operands), 0


_bilinear = Primitive("bilinear")
_bilinear.def_abstract_eval(lambda *_, plain, cpu: plain.out_avals[0])
# Without jit, that is under `jax.disable_jit`.
_bilinear.def_impl(lambda *operands, plain, cpu: _call(plain, *operands))
ad.defbilinear(_bilinear, functools.partial(_transpose, 0), functools.partial(_transpose, 1))
batching.primitive_batchers[_bilinear] = _batch
mlir.register_lowering(
    _bilinear,
    mlir.lower_fun(lambda *operands, plain, cpu: _call(plain, *operands), multiple_results=False),
)
mlir.register_lowering(
    _bilinear,
    mlir.lower_fun(lambda *operands, plain, cpu: _call(cpu, *operands), multiple_results=False),
    platform="cpu",
)


@jax.custom_jvp
def _product(x, kernel):
    """x @ kernel, [N, I] by [I, O], with a fast gradient of the kernel.

    That gradient, x^T g, contracts the rows of both. XLA's CPU backend has no fast routine for it,
    but one for (g^T x)^T with g^T in memory, which takes 0.5 to 0.8 of the time from 128 channels
    on (JAX 0.10.2, timed by hand). The barriers keep XLA from rewriting one product as the other.
    They stand in the kernel's tangent, whose transpose is the gradient.
    """
    return x @ kernel


@functools.partial(_product.defjvp, symbolic_zeros=True)
def _product_jvp(primals, tangents):
    (x, kernel), (dx, dkernel) = primals, tangents
    barrier = jax.lax.optimization_barrier
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(dx @ kernel)
    if not isinstance(dkernel, SymbolicZero):
        terms.append(barrier(barrier(dkernel.T) @ x.T).T)
    return _product(x, kernel), sum(terms[1:], start=terms[0])


_OFFSETS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
_CORNERS = [(i, j) for i in (0, 1) for j in (0, 1)]


def pointwise(x, kernel):
    """`x @ kernel` as a product of two matrices.

    The gradient of a product of higher rank contracts several axes at once, for which XLA's CPU
    backend transposes and copies its operands.
    """
    y = _product(x.reshape(-1, x.shape[-1]), kernel)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def conv3x3(x, kernel):
    """3x3 convolution as one matrix product.

    With no more channels in than out, it is the product of the nine shifted inputs side by side;
    otherwise the input is multiplied by all nine taps, and the nine products are shifted and added.
    Each form is the transpose of the other, so gradients are as fast.
    """
    inputs, outputs = kernel.shape[2:]
    if inputs <= outputs:
        patches = jnp.concatenate([_shift(x, i, j) for i, j in _OFFSETS], axis=-1)
        return pointwise(patches, kernel.reshape(9 * inputs, outputs))
    taps = kernel.reshape(9, inputs, outputs).swapaxes(0, 1).reshape(inputs, 9 * outputs)
    products = jnp.split(pointwise(x, taps), 9, axis=-1)
    return sum(_shift(p, i, j) for p, (i, j) in zip(products, _OFFSETS, strict=True))


def _shift(x, i, j):
    """x[:, h + i, w + j] at [:, h, w], zero outside. One pad, so that its transpose is one too."""
    return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (-i, i, 0), (-j, j, 0), (0, 0, 0)))


def conv4x4_down(x, kernel):
    """4x4 convolution of stride 2 as matrix products.

    2x2 blocks of pixels become channels, which leaves a 2x2 convolution of stride 1: one product
    for each of its four taps, or, where the blocks have few channels, one product of the four
    shifted images side by side.
    """
    b, h, w, i = x.shape
    h, w, o = h // 2, w // 2, kernel.shape[-1]
    blocks = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(b, h + 1, 2, w + 1, 2, i)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(b, h + 1, w + 1, 4 * i)
    taps = kernel.reshape(2, 2, 2, 2, i, o).transpose(0, 2, 1, 3, 4, 5).reshape(4, 4 * i, o)
    patches = [blocks[:, m : m + h, n : n + w] for m, n in _CORNERS]
    if 4 * i <= o:
        return pointwise(jnp.concatenate(patches, axis=-1), taps.reshape(16 * i, o))
    return sum(pointwise(patch, tap) for patch, tap in zip(patches, taps, strict=True))


def conv4x4_up(x, kernel):
    """The transpose of `conv4x4_down`: matrix products that give blocks of 2x2 pixels.

    One product for each of the four taps of blocks, or one for all four where the blocks have few
    channels.
    """
    b, h, w, i = x.shape
    o = kernel.shape[-1]
    taps = kernel.reshape(2, 2, 2, 2, i, o).transpose(0, 2, 4, 1, 3, 5).reshape(4, i, 4 * o)

    def put(part, m, n):
        return jnp.pad(part, ((0, 0), (m, 1 - m), (n, 1 - n), (0, 0)))

    if 4 * o <= i:
        parts = jnp.split(pointwise(x, taps.swapaxes(0, 1).reshape(i, 16 * o)), 4, axis=-1)
    else:
        parts = [pointwise(x, tap) for tap in taps]
    blocks = sum(put(part, m, n) for part, (m, n) in zip(parts, _CORNERS, strict=True))
    pixels = blocks.reshape(b, h + 1, w + 1, 2, 2, o).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(b, 2 * h + 2, 2 * w + 2, o)[:, 1:-1, 1:-1]
