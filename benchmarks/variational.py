"""Variational autoencoders and Deep InfoMax: a step against PyTorch, and many seeds at once.

    python -m benchmarks.variational             # everything
    python -m benchmarks.variational seeds       # some cases

What is measured: training steps (loss, gradient, Adam) on f32 batches of 100 images, compiled with
a donated state as the loop compiles them. The models, of width 32:

vae       `ConvEncoder` and `ConvDecoder` with 20 latents; the negative ELBO with the analytic KL
          and the variance of the pixels that is optimal for the batch (sigma-VAE).
infomax   `experiments.methods.infomax` with the objective of kexue.fm post 6024: a code of 64, and
          discriminators of 256 units of two codes and of a code and a location.

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
from experiments.lib.sources.image_set import Images
from experiments.methods.infomax import InfoMaxConfig
from experiments.methods.infomax import infomax as infomax_method
from jaxgen import divergences, losses, models

BATCH, WIDTH, SEEDS = 100, 32, 10
SHAPES = {28: (28, 28, 1), 64: (64, 64, 3)}
ROUNDS = {28: 15, 64: 5}  # by the side of the images


class Model(NamedTuple):
    """What a step trains.

    Attributes:
      init: (key, x [B, H, W, C] in [0, 1]) -> state, which has `params`.
      step: (state, x, key) -> (state, metrics).
      layers: (H, W, C) of the images -> FLOPs of the forward pass of one image, layer by layer.
    """

    init: Callable
    step: Callable
    layers: Callable


class State(NamedTuple):
    """Parameters, and the state of the optimizer."""

    params: Any
    opt_state: Any


class Counted(NamedTuple):
    """A state, and the number of steps done, which gives each its own noise."""

    state: Any
    count: Any


def vae(width: int = WIDTH, latents: int = 20) -> Model:
    """The convolutional VAE."""
    encoder, optimizer = models.ConvEncoder(2 * latents, width), optax.adam(1e-3)

    def loss(params, x, key):
        code: Any = encoder.apply(params["encoder"], x)
        mean, log_std = jnp.split(code, 2, axis=-1)
        z = losses.reparameterize(key, mean, log_std)
        made = models.ConvDecoder(x.shape[1:], width).apply(params["decoder"], z)
        fit = losses.gaussian_log_likelihood(x, made, losses.optimal_log_std(x, made))
        return jnp.mean(divergences.gaussian_kl_to_standard(mean, log_std) - fit)

    def init(key, x):
        encoder_key, decoder_key = jax.random.split(key)
        decoder = models.ConvDecoder(x.shape[1:], width)
        params = {
            "encoder": encoder.init(encoder_key, x),
            "decoder": decoder.init(decoder_key, jnp.zeros((1, latents))),
        }
        return State(params, optimizer.init(params))

    def step(state, x, key):
        value, gradient = jax.value_and_grad(loss)(state.params, x, key)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state), {"loss": value}

    return Model(init, step, partial(layers_of_vae, width=width, latents=latents))


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


def infomax(**knobs) -> Model:
    """Su's variant of Deep InfoMax."""
    config = InfoMaxConfig(**{"objective": "su", "width": WIDTH, **knobs})

    def method(x):
        return infomax_method(config, Images("noise", None, None, x.shape[1:], levels=2))

    return Model(
        lambda key, x: method(x).init(key, {"image": x}),
        lambda state, x, key: method(x).step(state, {"image": x}, key),
        partial(layers_of_infomax, config=config),
    )


def layers_of_infomax(shape, config: InfoMaxConfig) -> list[int]:
    """The encoder's, and those of both discriminators, for a pair and for a negative pair."""
    side, _, inputs = shape
    outputs, convolutions = config.width, []
    while side > 4:
        convolutions.append(2 * side**2 * 9 * inputs * outputs)
        side, inputs, outputs = (side + 1) // 2, outputs, 2 * outputs
    convolutions += 2 * [2 * side**2 * 9 * inputs**2]
    code, units = config.code, config.units

    def critic(places, joined):
        return [2 * 2 * places * n for n in (joined * units, units**2, units**2, units)]

    local = critic(side**2, code + inputs)
    return [*convolutions, 2 * inputs * 2 * code, *critic(1, 2 * code), *local]


MODELS: dict[str, Callable[..., Model]] = {"vae": vae, "infomax": infomax}


def images(shape: tuple[int, int, int]) -> jax.Array:
    """A batch [B, H, W, C]."""
    return jax.random.uniform(jax.random.key(0), (BATCH, *shape))


def initial(model: Model, x, key) -> Counted:
    """Before the first step."""
    return Counted(model.init(key, x), jnp.zeros((), jnp.uint32))


def trainer(model: Model):
    """(counted, x) -> (counted, metrics), one step; not compiled."""

    def train(counted, x):
        key = jax.random.fold_in(jax.random.key(2), counted.count)
        state, metrics = model.step(counted.state, x, key)
        return Counted(state, counted.count + 1), metrics

    return train


def torch_steps(name: str, params, x) -> dict:
    """Every way of PyTorch that works here."""

    def make(channels_last, compiled):
        from benchmarks import variational_peer  # noqa: PLC0415  PyTorch is optional

        return variational_peer.step(name, params, np.array(x), channels_last, compiled)

    return lib.torch_ways("step", make, model=name, side=x.shape[1])


def step_case() -> list[dict]:
    """One step, ours and PyTorch's."""
    rows = []
    for side, shape in SHAPES.items():
        for name, make in MODELS.items():
            model, x = make(), images(shape)
            start = jax.jit(partial(initial, model, x))(jax.random.key(1))
            theirs = torch_steps(name, jax.device_get(start.state.params), x)
            runs = {"ours": lib.training(trainer(model), start, x), **theirs}
            layers = model.layers(shape)
            work = BATCH * (3.0 * sum(layers) - layers[0])
            rows += lib.steps("step", runs, ROUNDS[side], work, model=name, side=side)
    return rows


def seeds_case() -> list[dict]:
    """Ten models at once, and one after the other."""
    x, rows = images(SHAPES[28]), []
    for name, make in MODELS.items():
        model = make()
        init = partial(initial, model, x)
        rows += lib.seeds("seeds", trainer(model), init, x, SEEDS, rounds=7, model=name)
    return rows


CASES = {"step": step_case, "seeds": seeds_case}


if __name__ == "__main__":
    lib.run(CASES, sys.argv[1:])
