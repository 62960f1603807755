"""Maximum likelihood: the method, and the flags of every model that it fits."""

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.lib.config import CHANGEABLE, FOLDER, AtLeast
from experiments.lib.errors import UserError
from experiments.lib.method import Method
from experiments.lib.sources.image_set import Images
from experiments.lib.sources.images import ImageConfig
from experiments.methods import features, judge, pixel_judge
from experiments.methods.samples import in_blocks
from jaxgen import flows
from jaxgen.optimizers import update_ema

METRICS = judge.METRICS | {
    "bits_per_dim": "codelength of a test image per pixel and channel, at most; lower is better",
    "parameters": "number of parameters",
}
_DRAW = 2**32 - 1  # folded into a key: the draws of `log_prob` are not those of the dequantization
_JUDGED = 100  # samples that the judge draws at once; large images need much memory


class Density(NamedTuple):
    """A model of images y [B, H, W, C] in [0, 1): its log-density, or a lower bound of it.

    Attributes:
      init: (key, y) -> params.
      log_prob: (params, key, y) -> [B] in nats: exact, or a lower bound in expectation over the
        draws of the key.
      sample: (params, key, count) -> y [count, H, W, C].
    """

    init: Callable
    log_prob: Callable
    sample: Callable


@dataclass(frozen=True)
class LikelihoodConfig(ImageConfig):
    """The flags of every model that is fitted by maximum likelihood."""

    learning_rate: Annotated[float, AtLeast(0)] = 4e-3
    """Peak of the warm-up and cosine schedule."""
    weight_decay: Annotated[float, AtLeast(0)] = 3000.0
    """Decoupled decay of the networks' kernels, times the number of training examples."""
    init_batch: Annotated[int, AtLeast(1)] = 512
    """Images that set the first scales (actnorm)."""
    cfid: bool = False
    """Judge samples by a classifier's features too; trains the classifier once. Needs labels."""
    extractor_dir: Annotated[str, CHANGEABLE, FOLDER] = ""
    """Folder of that classifier, and of numbers of real images; empty: extractors/ beside the run.
    """

    def images(self) -> Images:
        """Opens the data set.

        Raises:
          UserError: the data is not there, not whole, or not images of one size; or --cfid without
            labels or with too few images.
        """
        data = super().images()
        if self.cfid and not judge.by_features(data):
            raise UserError(f"--cfid: expected a set with labels and many images, not {data.name}")
        return data


class State(NamedTuple):
    """The state of training.

    Attributes:
      params: of the model.
      ema: running average of params, used for evaluation and sampling.
      opt_state: of the optimizer.
      count: steps done.
    """

    params: Any
    ema: Any
    opt_state: Any
    count: Any


def schedule(config: LikelihoodConfig) -> optax.Schedule:
    """A short warm-up, then a cosine to zero over all steps."""
    steps = config.steps
    return optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup_steps=max(1, steps // 20), decay_steps=max(2, steps)
    )


def adam(config: LikelihoodConfig, examples: int) -> optax.GradientTransformation:
    """AdamW with a short warm-up, a cosine decay to zero, and clipping of the gradient's norm.

    Weight decay applies to the kernels of the networks only. The parameters of actnorm and of the
    1x1 convolutions of a flow hold the scale of the data, which decay would pull towards one.
    """

    def kernels(params):
        return jax.tree.map_with_path(lambda path, _: "kernel" in str(path[-1]), params)

    decay = config.weight_decay / examples
    return optax.chain(
        optax.clip_by_global_norm(100.0),
        optax.adamw(schedule(config), weight_decay=decay, mask=kernels),
    )


def maximum_likelihood(
    density: Density,
    optimizer: optax.GradientTransformation,
    data: Images,
    config: LikelihoodConfig,
    ema_decay: float = 0.999,
    noise: Callable | None = None,
) -> Method:
    """Minimises bits/dim of dequantized images.

    bits/dim = -(log p((x + u) / levels) - D log levels) / (D log 2). Its expectation over u is an
    upper bound of the code length of the integers x. The method also has `sample`, `log_prob`, the
    bound with one draw of u, and `judge`, which compares samples with the test images.

    Args:
      density: the model.
      optimizer: of its parameters.
      data: the images.
      config: the flags.
      ema_decay: of the running average of the parameters (Polyak & Juditsky 1992).
      noise: (key, integers) -> (y, logdet), the noisy images of training. The default is uniform
        dequantization, which the evaluation always uses.
    """
    dims = math.prod(data.shape)
    rate = schedule(config)

    def uniform(key, images):
        return flows.dequantize(key, images, data.levels)

    def log_prob(params, key, y, logdet):
        return density.log_prob(params, jax.random.fold_in(key, _DRAW), y) + logdet

    def bits(*arguments):
        return flows.bits_per_dim(log_prob(*arguments), dims)

    def init(key, batch):
        init_key, noise_key = jax.random.split(key)
        y, _ = (noise or uniform)(noise_key, batch["image"])
        params = density.init(init_key, y)
        # A copy: the step donates the state, and a buffer can be donated only once.
        ema = jax.tree.map(jnp.copy, params)
        return State(params, ema, optimizer.init(params), jnp.zeros((), jnp.int32))

    def step(state, batch, key):
        noisy = (noise or uniform)(key, batch["image"])
        loss, grads = jax.value_and_grad(lambda p: jnp.mean(bits(p, key, *noisy)))(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        count = state.count + 1
        ema = update_ema(params, state.ema, count, ema_decay)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        metrics["learning_rate"] = rate(state.count)
        return State(params, ema, opt_state, count), metrics

    def evaluate(state, batch, key):
        return {"bits_per_dim": bits(state.ema, key, *uniform(key, batch["image"]))}

    @functools.partial(jax.jit, static_argnums=2)
    def block(params, key, count):
        return flows.quantize(density.sample(params, key, count), data.levels).astype(jnp.uint8)

    def sample(state, key, count, at_once=1000):
        return in_blocks(lambda key, own: block(state.ema, key, len(own)), key, count, at_once)

    @jax.jit
    def log_prob_of_pixels(state, x, key):
        return log_prob(state.ema, key, *uniform(key, x))

    return Method(
        init,
        step,
        evaluate,
        judge=_judge(data, config, functools.partial(sample, at_once=_JUDGED)),
        sample=sample,
        log_prob=log_prob_of_pixels,
        init_batch=config.init_batch,
        meanings=METRICS,
    )


def _judge(data: Images, config: LikelihoodConfig, sample: Callable) -> Callable:
    """The number of parameters, and the judges that the images and the flags allow."""

    def fakes(state, key, count):
        return features.signed_pixels(sample(state, key, count), data.levels)

    def parameters(state, key):
        learned = [
            x for x in jax.tree.leaves(state.params) if jnp.issubdtype(x.dtype, jnp.floating)
        ]
        return {"parameters": sum(x.size for x in learned)}

    folder = features.folder(config.extractor_dir, config.workdir)
    judges = [parameters]
    if pixel_judge.suitable(data):
        judges.append(pixel_judge.by_pixels(data, folder, fakes))
    if config.cfid:
        judges.append(judge.features_judge(data, folder, fakes))

    def numbers(state, key):
        return functools.reduce(operator.or_, [one(state, key) for one in judges])

    return numbers
