"""Deep InfoMax and SimCLR: the objectives by name, and the method that trains an encoder."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.lib.config import Above, AtLeast
from experiments.lib.errors import UserError
from experiments.lib.method import Method
from experiments.lib.sources.image_set import Images
from experiments.lib.sources.images import ImageConfig
from experiments.methods import augmentation
from experiments.methods.classification import State, pixels
from jaxgen import divergences, losses
from jaxgen.models import MLP, Encoding, InfoMaxEncoder


@dataclass(frozen=True)
class InfoMaxConfig(ImageConfig):
    """The flags of the method."""

    objective: Literal["su", "jsd", "info_nce", "dv", "two_views"] = "info_nce"
    """What is maximised: su (discriminators of concatenations, one negative each), a bound of the
    information between code and feature map by the scores of all pairs of a batch (jsd, info_nce,
    dv), or the agreement of two augmented views (two_views: SimCLR)."""
    global_weight: Annotated[float | None, AtLeast(0)] = None
    """Weight of the term of whole images; unset: 0.5 of su, 1 of two_views, 0 of the others."""
    local_weight: Annotated[float | None, AtLeast(0)] = None
    """Weight of the term of code and locations; unset: 1.5 of su, 0 of two_views, 1 of the
    others."""
    prior_weight: Annotated[float | None, AtLeast(0)] = None
    """Weight of what pulls codes to N(0, I); unset: 0 of two_views, 0.01 of the others. The paper
    has 0.1 for jsd, at which the critic of codes gets the better of an encoder that is trained for
    minutes."""
    prior: Literal["usual", "kl", "adversarial"] = "usual"
    """kl: the code is Gaussian, and pays its KL divergence; adversarial: the code is a function of
    the image, and a critic tells codes from normal draws; usual: kl for su, else adversarial."""
    code: Annotated[int, AtLeast(1)] = 64
    """Dimensions of the code."""
    width: Annotated[int, AtLeast(1)] = 32
    """Channels of the encoder's first stage."""
    units: Annotated[int, AtLeast(1)] = 256
    """Units of the layers of discriminators and heads."""
    temperature: Annotated[float, Above(0)] = 0.2
    """Temperature of the cosines of two views."""
    learning_rate: Annotated[float, AtLeast(0)] = 1e-3
    """Adam's step size, which falls to zero along a cosine."""
    batch_size: int = 256
    """Images per step, over all devices; negatives are among them."""

    def __post_init__(self):
        super().__post_init__()
        if self.batch_size < 2:
            raise UserError(
                f"--batch-size {self.batch_size}: expected at least 2, negatives are other images"
            )
        strange = {n for n, weight in self.weights().items() if weight} - {"prior"}
        strange -= OBJECTIVES[self.objective].terms.keys()
        if strange:
            raise UserError(
                f"--{strange.pop()}-weight: --objective {self.objective} has no such term;"
                " expected 0"
            )

    def weights(self) -> dict[str, float]:
        """The weight of each term: of "global", "local" and "prior"."""
        given = {name: getattr(self, f"{name}_weight") for name in ("global", "local", "prior")}
        usual = OBJECTIVES[self.objective].weights
        return {name: usual[name] if own is None else own for name, own in given.items()}

    def stochastic(self) -> bool:
        """Whether the code is drawn from a Gaussian."""
        usual = OBJECTIVES[self.objective].prior
        return (usual if self.prior == "usual" else self.prior) == "kl"


class Objective(NamedTuple):
    """What an encoder maximises.

    Attributes:
      terms: name -> (config, Encoding, key) -> loss [B]; called inside a flax module.
      weights: their usual weights, and that of "prior".
      prior: the usual one, "kl" or "adversarial".
      views: number of random views of each image that are encoded; 0: the image itself.
    """

    terms: Mapping[str, Callable]
    weights: Mapping[str, float]
    prior: str = "adversarial"
    views: int = 0


def _discriminate(config: InfoMaxConfig, x, y, key):
    """A discriminator of concatenations [z, y] and [z, another image's y]; y is [B, ..., C]."""
    critic = MLP(1, hidden=(config.units,) * 3)
    places = y.shape[1:-1]
    x = jnp.broadcast_to(x.reshape(len(x), *[1] * len(places), -1), (*y.shape[:-1], x.shape[-1]))
    pairs = (jnp.concatenate([x, y], axis=-1) for y in (y, losses.derange(key, y)))
    terms = losses.logistic_critic_loss(*(critic(pair)[..., 0] for pair in pairs))
    return jnp.mean((terms.real + terms.fake).reshape(len(x), -1), axis=1)


def _embedded(config: InfoMaxConfig, x, y):
    """Scores of all pairs: the products of two embeddings, of variance 1 at the start."""
    x, y = (MLP(config.units, hidden=(config.units,))(side) for side in (x, y))
    return losses.pair_scores(x, y, math.sqrt(config.units))


def all_pairs(bound: Callable, local_loss: Callable | None = None) -> Objective:
    """Deep InfoMax with a bound of the scores of all pairs; only the local term by default.

    Args:
      bound: scores [..., B, B] -> [..., B].
      local_loss: scores [h, w, B, B] -> loss [B]; None: minus the mean of the bound over locations.
    """

    def global_(config, encoding, key):
        whole = encoding.features.reshape(len(encoding.code), -1)
        return -bound(_embedded(config, encoding.code, whole))

    def local(config, encoding, key):
        scores = _embedded(config, encoding.code, encoding.features)
        return local_loss(scores) if local_loss else -jnp.mean(bound(scores), axis=(0, 1))

    return Objective({"global": global_, "local": local}, {"global": 0, "local": 1, "prior": 0.01})


def _between_views(config: InfoMaxConfig, encoding: Encoding, key):
    """SimCLR's loss; the first half of the batch has one view of each image, the second another."""
    x, y = jnp.split(MLP(config.units, hidden=(config.units,))(encoding.code), 2)
    return losses.nt_xent_loss(x, y, config.temperature)


OBJECTIVES: Mapping[str, Objective] = {
    "su": Objective(
        {
            "global": lambda config, encoding, key: _discriminate(
                config, encoding.code, encoding.code, key
            ),
            "local": lambda config, encoding, key: _discriminate(
                config, encoding.code, encoding.features, key
            ),
        },
        {"global": 0.5, "local": 1.5, "prior": 0.01},
        prior="kl",
    ),
    "jsd": all_pairs(partial(divergences.f_information_bound, divergences.jensen_shannon())),
    "info_nce": all_pairs(divergences.info_nce_bound, losses.local_info_nce_loss),
    "dv": all_pairs(divergences.donsker_varadhan_bound),
    "two_views": Objective(
        {"global": _between_views}, {"global": 1, "local": 0, "prior": 0}, views=2
    ),
}
"""Objectives by name."""


def views(key, images):
    """One random view of each image [B, H, W, C] in [0, 1].

    A crop and a change of brightness, contrast and colours. Grey images are also warped, as
    handwriting may be; coloured ones are also mirrored.
    """
    first, second, last = jax.random.split(key, 3)
    if images.shape[-1] == 1:
        images = augmentation.random_crop(first, augmentation.random_affine(second, images), 0.5)
    else:
        images = augmentation.random_crop(first, augmentation.random_flip(second, images))
    return augmentation.color_jitter(last, images)


def network(config: InfoMaxConfig) -> InfoMaxEncoder:
    """The encoder of images in [-1, 1]; of a Gaussian code it gives mean and 10 (log std + 1)."""
    return InfoMaxEncoder(config.code * (1 + config.stochastic()), config.width)


def encode(config: InfoMaxConfig, params, images) -> Encoding:
    """Feature map and code of images [B, H, W, C] in [0, 1]; of a Gaussian code its mean."""
    encoding: Any = network(config).apply(params, 2 * images - 1)
    return encoding._replace(code=encoding.code[:, : config.code])


class _Terms(nn.Module):
    """The terms with a weight, and their networks: (Encoding, key) -> {name: loss [B]}."""

    config: InfoMaxConfig

    @nn.compact
    def __call__(self, encoding: Encoding, key):
        """The keys of the terms do not depend on the weights."""
        weights, terms = self.config.weights(), OBJECTIVES[self.config.objective].terms
        named = zip(terms.items(), jax.random.split(key, len(terms)), strict=True)
        return {n: term(self.config, encoding, key) for (n, term), key in named if weights[n]}


def adversarial_prior(critic: MLP, params, code, key):
    """The losses of a game that draws codes to N(0, I): of the encoder [B], and of the critic [B].

    The encoder's has no gradient to the critic's parameters, the critic's none to the code, so that
    one optimizer may minimise their sum.
    """

    def score(params, z):
        scores: Any = critic.apply(params, z)
        return scores[:, 0]

    fixed, given = jax.lax.stop_gradient((params, code))
    own = losses.non_saturating_generator_loss(score(fixed, code))
    normal = jax.random.normal(key, code.shape)
    terms = losses.logistic_critic_loss(score(params, normal), score(params, given))
    return own, terms.real + terms.fake


def infomax(config: InfoMaxConfig, data: Images, **rest) -> Method:
    """Trains an encoder by the objective of the configuration.

    Encoder, heads and the critic of the adversarial prior descend together: the critic's loss does
    not reach the encoder, nor the encoder's the critic.

    Args:
      config: the flags.
      data: the images; labels are not used.
      **rest: the other fields of the method.
    """
    encoder, terms, critic = network(config), _Terms(config), MLP(1, hidden=(config.units,))
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
    count, weights = OBJECTIVES[config.objective].views, {"critic": 1.0, **config.weights()}
    adversarial = weights["prior"] > 0 and not config.stochastic()

    def seen(key, batch):
        images = pixels(batch, data)
        if count:
            own = [views(key, images) for key in jax.random.split(key, count)]
            images = jnp.concatenate(own)
        return 2 * images - 1

    def drawn(raw, key):
        """The code, and the losses of a Gaussian one.

        Its deviation starts near 1 / e. With log_std = raw, some start above e, and the local
        discriminator, which sees noise only, never learns on MNIST.
        """
        if not config.stochastic():
            return raw, None
        mean, raw = jnp.split(raw, 2, axis=-1)
        log_std = 0.1 * raw - 1
        code = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        # The mean over dimensions, as in the post.
        return code, divergences.gaussian_kl_to_standard(mean, log_std) / config.code

    def loss(params, images, key):
        keys = jax.random.split(key, 3)
        raw: Any = encoder.apply(params["encoder"], images)
        code, prior = drawn(raw.code, keys[0])
        named: Any = terms.apply(params["terms"], raw._replace(code=code), keys[1])
        if adversarial:
            prior, named["critic"] = adversarial_prior(critic, params["critic"], code, keys[2])
        if weights["prior"]:
            named["prior"] = prior
        named = {name: jnp.mean(value) for name, value in named.items()}
        total = sum((weights[name] * value for name, value in named.items()), jnp.zeros(()))
        return total, named

    def init(key, batch):
        keys = jax.random.split(key, 6)
        images = seen(keys[0], batch)
        raw, params = encoder.init_with_output(keys[1], images)
        encoding = raw._replace(code=drawn(raw.code, keys[2])[0])
        params = {"encoder": params, "terms": terms.init(keys[3], encoding, keys[4])}
        if adversarial:
            params["critic"] = critic.init(keys[5], encoding.code)
        return State(params, optimizer.init(params))

    def step(state, batch, key):
        view_key, key = jax.random.split(key)
        slope = jax.value_and_grad(loss, has_aux=True)
        (total, named), gradient = slope(state.params, seen(view_key, batch), key)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        metrics = {"loss": total, **named}
        return State(optax.apply_updates(state.params, updates), opt_state), metrics

    return Method(init, step, **rest)
