"""The clustering VAE: p(x, z, y) = p(y) p(z|y) p(x|z), as in a post, as in VaDE, and invariant."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.lib.config import Above, AtLeast
from experiments.lib.sources.images import ImageConfig
from experiments.methods.augmentation import random_affine, random_flip
from jaxgen import losses
from jaxgen.divergences import kl_divergence
from jaxgen.models import MLP, ConvDecoder, ConvEncoder

_GREYS = 0.01, 0.99  # limits of the mean pixel, so that its logit is finite
_SHARPNESS = 2.0, 20.0  # of the cosines of `invariant`, at the start and from 3/5 of the steps on


@dataclass(frozen=True)
class ClusteringConfig(ImageConfig):
    """The flags of the model, and of the changes that do not change a cluster."""

    method: Literal["post", "post_analytic", "bayes", "invariant"] = "invariant"
    """post: a classifier p(y|z), sampled KL term; post_analytic: in closed form; bayes: p(y|z) by
    Bayes' rule, with learned deviations and weights (VaDE); invariant: see above."""
    clusters: Annotated[int, AtLeast(1)] = 10
    """Number of clusters K."""
    latents: Annotated[int, AtLeast(1)] = 20
    """Dimensions of z."""
    network: Literal["dense", "conv"] = "dense"
    """Kind of encoder and decoder."""
    width: Annotated[int, AtLeast(1)] = 512
    """Hidden units of the dense networks."""
    channels: Annotated[int, AtLeast(1)] = 32
    """Channels of the first convolution."""
    error_weight: Annotated[float, AtLeast(0)] = 2.5
    """Weight of half the squared error of a reconstruction of 28 x 28 numbers, as in the post. For
    other sizes it is multiplied by 784 / (H W C), so that an image weighs the same."""
    classifiers: Annotated[int, AtLeast(1)] = 20
    """invariant: number of classifiers."""
    code: Annotated[int, AtLeast(1)] = 64
    """invariant: dimensions of the code that they see."""
    bound_weight: Annotated[float, AtLeast(0)] = 0.01
    """invariant: weight of the VAE's loss."""
    temperature: Annotated[float, Above(0)] = 0.5
    """invariant: of the contrastive loss."""
    rotation: Annotated[float, AtLeast(0)] = 0.3
    """invariant: largest angle by which a view is turned, in radians."""
    scale: Annotated[float, AtLeast(1)] = 1.25
    """invariant: largest factor by which a side of it is stretched or shrunk."""
    shear: Annotated[float, AtLeast(0)] = 0.2
    """invariant: largest slope by which it is slanted."""
    shift: Annotated[float, AtLeast(0)] = 0.1
    """invariant: largest shift, as a share of the image."""
    flip: bool = False
    """invariant: mirror half of the views left to right."""


class Model(NamedTuple):
    """A clustering VAE with H classifiers of K clusters each.

    Attributes:
      init: (key, x) -> params; "means" are the centers of the clusters in z, [K, D].
      loss: (params, key, x, progress in [0, 1], which classifier gives the y of the VAE)
        -> (scalar, (objectives of the classifiers [H], {name: scalar})).
      logits: (params, x) -> [H, B, K].
      encode: (params, x) -> means of q(z|x), [B, D].
      decode: (params, z) -> images [B, H, W, C] in [0, 1].
      prior: params -> logits of p(y) [K], and means and log-deviations of p(z|y), [K, D] each.
    """

    init: Callable
    loss: Callable
    logits: Callable
    encode: Callable
    decode: Callable
    prior: Callable


class Networks(nn.Module):
    """Encoder x -> features -> mean and log_std of z, and decoder z -> logits of the pixels."""

    config: ClusteringConfig
    shape: tuple[int, int, int]

    def setup(self):
        """The layers."""
        width, channels = self.config.width, self.config.channels
        self.trunk: nn.Module
        self.decoder: nn.Module
        if self.config.network == "dense":
            self.trunk = MLP(width, (width,))
            self.decoder = MLP(math.prod(self.shape), (width, width))
        else:
            self.trunk = ConvEncoder(width, channels)
            self.decoder = ConvDecoder(self.shape, channels)
        self.latents = nn.Dense(2 * self.config.latents)

    def encode(self, x):
        """[B, H, W, C] in [0, 1] -> features [B, width], mean and log_std of q(z|x) [B, D]."""
        flat = self.config.network == "dense"
        features = nn.relu(self.trunk(x.reshape(len(x), -1) if flat else x))
        return features, *jnp.split(self.latents(features), 2, axis=-1)

    def decode(self, z):
        """[B, D] -> [B, H, W, C]."""
        return self.decoder(z).reshape(-1, *self.shape)

    def __call__(self, x):
        """All of it, to start the parameters."""
        return self.decode(self.encode(x)[1])


class Coder(NamedTuple):
    """`Networks` as functions of params, which hold theirs and the "offset" of the logits [C].

    Attributes:
      init: (key, x) -> params.
      encode: (params, x) -> features [B, width], mean and log_std of q(z|x) [B, D].
      decode: (params, z) -> images [B, H, W, C] in [0, 1].
      error: (params, z, x) -> weight / 2 |x - G(z)|^2, [B].
    """

    init: Callable
    encode: Callable
    decode: Callable
    error: Callable


def coder(networks: Networks) -> Coder:
    """The functions of the networks.

    The offset starts at the logit of the mean pixel of x. Without it the first steps of dark images
    drive every logit down, and convolutions end at black images, where a sigmoid has no slope.
    """
    weight = networks.config.error_weight * 784 / math.prod(networks.shape)

    def init(key, x):
        mean = jnp.clip(x.mean((0, 1, 2)), *_GREYS)
        return {"networks": networks.init(key, x[:1]), "offset": jax.scipy.special.logit(mean)}

    def encode(params, x):
        return networks.apply(params["networks"], x, method="encode")

    def decode(params, z):
        logits: Any = networks.apply(params["networks"], z, method="decode")
        return nn.sigmoid(logits + jnp.broadcast_to(params["offset"], logits.shape))

    def error(params, z, x):
        return weight / 2 * jnp.sum((x - decode(params, z)) ** 2, axis=(1, 2, 3))

    return Coder(init, encode, decode, error)


def prior(params):
    """Logits [K] of p(y), means and log-deviations [K, D] of p(z|y); by default alike and 1."""
    means = params["means"]
    weights = params.get("weights", jnp.zeros(len(means)))
    return weights, means, params.get("log_std", jnp.zeros_like(means))


def plain(config: ClusteringConfig, shape, classifier: nn.Module | None, kl: Callable) -> Model:
    """weight / 2 |x - G(z)|^2 + KL(q(z, y|x) || p(z, y)), of Su's post or of VaDE.

    Args:
      config: the knobs.
      shape: of the images.
      classifier: z -> logits of p(y|z); None: p(y|z) by Bayes' rule.
      kl: the term of z, (posterior, z, mean, log_std, cluster_mean, cluster_log_std) -> [B].
    """
    networks, count, dims = Networks(config, shape), config.clusters, config.latents
    vae = coder(networks)

    def init(key, x):
        keys = jax.random.split(key, 3)
        params = vae.init(keys[0], x) | {"means": jnp.zeros((count, dims))}
        if classifier:
            return params | {"classifier": classifier.init(keys[1], jnp.zeros((1, dims)))}
        means = 0.1 * jax.random.normal(keys[2], (count, dims))
        prior = {"log_std": jnp.zeros((count, dims)), "weights": jnp.zeros(count)}
        return params | {"means": means, **prior}

    def log_posterior(params, z):
        if classifier:
            scores: Any = classifier.apply(params["classifier"], z)
            return nn.log_softmax(scores)
        return losses.cluster_log_posterior(
            z, params["means"], params["log_std"], params["weights"]
        )

    def loss(params, key, x, progress, chosen):
        _, mean, log_std = vae.encode(params, x)
        z = losses.reparameterize(key, mean, log_std)
        posterior = jnp.exp(log_posterior(params, z))
        weights, *centers = prior(params)
        of_z = kl(posterior, z, mean, log_std, *centers)
        of_y = kl_divergence(posterior, jnp.broadcast_to(nn.softmax(weights), posterior.shape))
        error = vae.error(params, z, x)
        total = jnp.mean(error + of_z + of_y)
        metrics = {"error": error.mean(), "kl_z": of_z.mean(), "kl_y": of_y.mean()}
        return total, (total[None], metrics)

    def logits(params, x):
        return log_posterior(params, vae.encode(params, x)[1])[None]

    return Model(init, loss, logits, lambda params, x: vae.encode(params, x)[1], vae.decode, prior)


def invariant(config: ClusteringConfig, shape) -> Model:
    """Clusters that do not depend on how an image lies.

    Two changed views of an image are encoded. The VAE's loss reconstructs the image itself from
    either code: with q(z|x) the mixture over all views it is still a bound (Im et al. 2017, arXiv
    1511.06406). `nt_xent_loss` brings the codes of both views together, and each classifier
    maximises the information between the clusters of both. A classifier compares the direction of a
    code with one direction for each cluster; its sharpness grows, as in deterministic annealing, so
    that it does not settle before the codes do. The VAE's y is that of the best classifier so far.
    """
    networks, heads = Networks(config, shape), config.classifiers
    vae, to_code = coder(networks), nn.Dense(config.code)

    def init(key, x):
        keys = jax.random.split(key, 4)
        directions = jax.random.normal(keys[2], (heads, config.clusters, config.code))
        return vae.init(keys[0], x) | {
            "code": to_code.init(keys[1], jnp.zeros((1, config.width))),
            "directions": directions,
            "means": jnp.zeros((config.clusters, config.latents)),
        }

    def view(key, x):
        affine_key, flip_key = jax.random.split(key)
        changes = config.rotation, config.scale, config.shear, config.shift
        x = random_affine(affine_key, x, *changes)
        return random_flip(flip_key, x) if config.flip else x

    def cosines(params, codes):
        return jnp.einsum("bd,hkd->hbk", _unit(codes), _unit(params["directions"]))

    def loss(params, key, x, progress, chosen):
        first_key, second_key, key = jax.random.split(key, 3)
        views = jnp.concatenate([view(first_key, x), view(second_key, x)])
        features, mean, log_std = vae.encode(params, views)
        codes: Any = to_code.apply(params["code"], features)
        low, high = _SHARPNESS
        sharpness = low + (high - low) * jnp.minimum(1.0, progress / 0.6)
        posterior = nn.softmax(sharpness * cosines(params, codes))
        information = losses.assignment_information(*jnp.split(posterior, 2, axis=1))
        first, second = jnp.split(codes, 2)
        contrast = losses.nt_xent_loss(first, second, config.temperature)
        z = losses.reparameterize(key, mean, log_std)

        posterior, uniform = posterior[chosen], jnp.full_like(posterior[0], 1 / config.clusters)
        of_z = losses.sampled_cluster_kl(posterior, z, mean, log_std, params["means"], 0.0)
        of_y = kl_divergence(posterior, uniform)
        error = vae.error(params, z, jnp.concatenate([x, x]))
        bound = jnp.mean(error + of_z + of_y)
        metrics = {
            "error": error.mean(),
            "kl_z": of_z.mean(),
            "kl_y": of_y.mean(),
            "contrast": contrast.mean(),
            "information": information.max(),
        }
        total = contrast.mean() - information.mean() + config.bound_weight * bound
        return total, (-information, metrics)

    def logits(params, x):
        features, _, _ = vae.encode(params, x)
        return cosines(params, to_code.apply(params["code"], features))

    return Model(init, loss, logits, lambda params, x: vae.encode(params, x)[1], vae.decode, prior)


def _unit(x):
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)


def _analytic(posterior, z, mean, log_std, cluster_mean, cluster_log_std):
    return losses.cluster_kl(posterior, mean, log_std, cluster_mean, cluster_log_std)


METHODS = {
    "post": lambda c, shape: plain(c, shape, MLP(c.clusters, (256,)), losses.sampled_cluster_kl),
    "post_analytic": lambda c, shape: plain(c, shape, MLP(c.clusters, (256,)), _analytic),
    "bayes": lambda c, shape: plain(c, shape, None, losses.sampled_cluster_kl),
    "invariant": invariant,
}
