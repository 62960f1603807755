"""Variational autoencoders: a training step against PyTorch, and many seeds at once.

    python -m benchmarks.variational             # everything
    python -m benchmarks.variational seeds       # some cases

What is measured: training steps (loss, gradient, Adam) on f32 batches of 100, the networks
`ConvEncoder` and `ConvDecoder` of width 32 with 20 latents, compiled with a donated state as the
loop compiles them. The loss is the negative ELBO with the analytic KL and the variance of the
pixels that is optimal for the batch (sigma-VAE).

step      One step at 28x28x1 and 64x64x3, against the same in PyTorch
          (`benchmarks.variational_peer`; a test holds that both do the same): as written, with
          channels_last tensors, and those compiled by torch.compile. All run in turn in one
          process, with as many threads for PyTorch as JAX takes. `ratio` is seconds over ours, so
          > 1 is slower than ours. `utilization` is the step's FLOP/s over those of a 2048^3 matrix
          product of JAX, timed in the same rounds. Its FLOPs are those of the convolutions and
          dense layers: forward, gradient of the weights, and gradient of the inputs but for the
          images'.
seeds     A step of 10 models, as `--seeds 10` trains them: by vmap (on an accelerator) and by
          lax.map (on a CPU), against 10 steps of one model, as 10 runs would do one after the
          other; 28x28x1. `ratio` is seconds over those of the separate steps, `temporary_mib` what
          XLA plans beside state and images.

Results: RESULTS.md.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import lib
from jaxgen import divergences, losses, models

BATCH, WIDTH, LATENTS, SEEDS = 100, 32, 20, 10
SHAPES = {28: (28, 28, 1), 64: (64, 64, 3)}
ROUNDS = {28: 15, 64: 5}  # by the side of the images
OPTIMIZER = optax.adam(1e-3)


class Model(NamedTuple):
    """What a step trains.

    Attributes:
      init: (key, x [B, H, W, C]) -> params.
      loss: (params, x, key) -> scalar.
      layers: (H, W, C) of the images -> FLOPs of the forward pass of one image, layer by layer.
    """

    init: Callable
    loss: Callable
    layers: Callable


class State(NamedTuple):
    """The state of training: parameters, state of the optimizer, number of steps."""

    params: Any
    opt_state: Any
    count: Any


def vae(width: int = WIDTH, latents: int = LATENTS) -> Model:
    """The convolutional VAE."""
    encoder = models.ConvEncoder(2 * latents, width)

    def init(key, x):
        encoder_key, decoder_key = jax.random.split(key)
        return {
            "encoder": encoder.init(encoder_key, x),
            "decoder": models.ConvDecoder(x.shape[1:], width).init(
                decoder_key, jnp.zeros((1, latents))
            ),
        }

    def loss(params, x, key):
        mean, log_std = jnp.split(encoder.apply(params["encoder"], x), 2, axis=-1)
        z = losses.reparameterize(key, mean, log_std)
        made = models.ConvDecoder(x.shape[1:], width).apply(params["decoder"], z)
        fit = losses.gaussian_log_likelihood(x, made, losses.optimal_log_std(x, made))
        return jnp.mean(divergences.gaussian_kl_to_standard(mean, log_std) - fit)

    return Model(init, loss, partial(layers_of_vae, width=width, latents=latents))


def layers_of_vae(shape, width: int, latents: int) -> list[int]:
    """Multiplications and additions; a transposed convolution is the convolution the other way."""
    side, _, channels = shape
    down, up, inputs, outputs = [], [], channels, width
    while side > 7:
        side //= 2
        last = side <= 7
        down += [2 * side**2 * 16 * inputs * outputs, 2 * side**2 * 9 * outputs**2]
        up += [2 * side**2 * 16 * outputs**2, 2 * side**2 * 9 * outputs**2 * (1 if last else 2)]
        inputs, outputs = outputs, 2 * outputs
    dense = 2 * side**2 * inputs * latents
    return [*down, 2 * dense, dense, *up[::-1], 2 * shape[0] * shape[1] * 9 * width * channels]


MODELS = {"vae": vae}


def images(shape: tuple[int, int, int]) -> jax.Array:
    """A batch [B, H, W, C]."""
    return jnp.tanh(jax.random.normal(jax.random.key(0), (BATCH, *shape)))


def initial(model: Model, x, key) -> State:
    """Before the first step."""
    params = model.init(key, x)
    return State(params, OPTIMIZER.init(params), jnp.zeros((), jnp.uint32))


def trainer(model: Model):
    """(state, x) -> (state, loss), one step; not compiled."""

    def train(state, x):
        key = jax.random.fold_in(jax.random.key(2), state.count)
        loss, gradient = jax.value_and_grad(model.loss)(state.params, x, key)
        updates, opt_state = OPTIMIZER.update(gradient, state.opt_state, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state, state.count + 1), loss

    return train


def step_case() -> list[dict]:
    """One step, ours and PyTorch's."""
    rows = []
    for side, shape in SHAPES.items():
        for name, make_model in MODELS.items():
            model, x = make_model(), images(shape)
            state = jax.jit(partial(initial, model, x))(jax.random.key(1))
            params = jax.device_get(state.params)

            def make(channels_last, compiled, name=name, params=params, x=x):
                from benchmarks import variational_peer  # noqa: PLC0415  PyTorch is optional

                return variational_peer.step(name, params, np.array(x), channels_last, compiled)

            runs = {"ours": lib.training(trainer(model), state, x)}
            runs |= lib.torch_ways("step", make, model=name, side=side)
            layers = model.layers(shape)
            work = BATCH * (3.0 * sum(layers) - layers[0])
            rows += lib.steps("step", runs, ROUNDS[side], work, model=name, side=side)
    return rows


def seeds_case() -> list[dict]:
    """Ten models at once, and one after the other."""
    x, rows = images(SHAPES[28]), []
    for name, make_model in MODELS.items():
        model = make_model()
        init = partial(initial, model, x)
        rows += lib.seeds("seeds", trainer(model), init, x, SEEDS, rounds=7, model=name)
    return rows


CASES = {"step": step_case, "seeds": seeds_case}


if __name__ == "__main__":
    lib.run(CASES, sys.argv[1:])
