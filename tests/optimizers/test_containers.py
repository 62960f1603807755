"""One network in every container: its updates are those of a dict, and its paths as well."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxgen import optimizers as opt
from jaxgen.optimizers.paths import named_leaves

TOKENS = jnp.array([0, 1, 3])


class Nnx(nnx.Module):
    """Two stacked layers between an embedding and a norm."""

    def __init__(self, rngs):
        @nnx.split_rngs(splits=2)
        @nnx.vmap(in_axes=0, out_axes=0)
        def blocks(rngs):
            return nnx.Linear(3, 3, rngs=rngs)

        self.embed = nnx.Embed(5, 3, rngs=rngs)
        self.blocks = blocks(rngs)
        self.norm = nnx.LayerNorm(3, rngs=rngs)

    def __call__(self, tokens):
        layers = nnx.scan(
            lambda x, layer: jnp.tanh(layer(x)), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry
        )
        return self.norm(layers(self.embed(tokens), self.blocks))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        kernel = nn.with_partitioning(nn.initializers.lecun_normal(), ("in", "out"))
        return jnp.tanh(nn.Dense(3, kernel_init=kernel, name="dense")(x)), None


class Linen(nn.Module):
    """The same, with kernels in boxes."""

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(5, 3, name="embed")(tokens)
        axes, meta = {"params": 0}, {nn.PARTITION_NAME: None}
        scan = nn.scan(Block, axes, split_rngs={"params": True}, length=2, metadata_params=meta)
        return nn.LayerNorm(name="norm")(scan(name="blocks")(x, None)[0])


def dataclass(cls):
    """A tree with named fields."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(cls))


@dataclass
class Layer:
    bias: Any
    kernel: Any


@dataclass
class Table:
    embedding: Any


@dataclass
class Norm:
    bias: Any
    scale: Any


@dataclass
class Module:
    """Like an equinox module: a tree that can be called."""

    blocks: Any
    embed: Any
    norm: Any

    def __call__(self, tokens):
        raise AssertionError("called as a function")


@dataclass
class Attention:
    key: Any
    query: Any
    value: Any


class Pair(NamedTuple):
    bias: Any
    kernel: Any


class Network(NamedTuple):
    blocks: Any
    embed: Any
    norm: Any


def model():
    found = Nnx(nnx.Rngs(0))
    found.norm.scale[...] = jnp.array([1.1, 0.9, 1.3])
    found.norm.bias[...] = jnp.array([0.3, -0.2, 0.1])
    return found


MODEL = model()
STATE = nnx.state(MODEL, nnx.Param)
PARAMS = nnx.to_pure_dict(STATE)
BOXED = jax.eval_shape(Linen().init, jax.random.key(0), TOKENS)["params"]
# The leaves come in the same order in all of them.
CONTAINERS = {
    "dict": PARAMS,
    "nnx.State": STATE,
    "linen": BOXED | {"blocks": BOXED["blocks"]["dense"]},
    "modules": Module(Layer(0, 0), Table(0), Norm(0, 0)),
    "named tuples": Network(Pair(0, 0), {"embedding": 0}, Norm(0, 0)),
}


def put(name, tree):
    """The leaves of a tree in another container."""
    return jax.tree.unflatten(jax.tree.structure(CONTAINERS[name]), jax.tree.leaves(tree))


PATHS = ["blocks/bias", "blocks/kernel", "embed/embedding", "norm/bias", "norm/scale"]


def paths(tree):
    return [path for path, _ in named_leaves(tree)]


def test_paths_end_in_the_own_name_of_the_parameter():
    for container, tree in CONTAINERS.items():
        assert paths(tree) == PATHS, container
    assert sorted(paths(MODEL)) == PATHS
    assert paths({"w": nnx.Param({"a": 1, "b": 2})}) == ["w/a", "w/b"]
    assert paths([Pair(1, 2)]) == ["0/bias", "0/kernel"]
    assert paths(jnp.ones(2)) == [""]


def test_a_parameter_that_is_called_value():
    attention = Attention(key=jnp.ones(2), query=jnp.ones(2), value=jnp.ones(2))
    hidden = dataclasses.replace(attention, key=optax.MaskedNode(), query=None)
    assert paths({"a": attention}) == ["a/key", "a/query", "a/value"]
    empty = dataclasses.replace(attention, key=None, query=None)
    assert paths({"a": hidden}) == paths({"a": empty}) == ["a/value"]


KEY = jax.random.key(0)
ADAM = optax.adam(0.1)
DEPTHS = {"embed/embedding$": 0, "^blocks/(kernel|bias)$": range(1, 3), "norm/(scale|bias)$": 3}
RATES = {"kernel$": 0.5, "embedding$": 0.0, "norm/scale$": 2.0, "bias$": 3.0}
TABLES = {"embedding$": True, "": False}
VALUES = jax.tree.unflatten(jax.tree.structure(PARAMS), [1.0, 2.0, 3.0, 0.0, 0.5])
LAYERS = {"blocks/": True, "": False}
MASK = jax.tree.map(lambda value: value == 3.0, VALUES)
LABELS = put("modules", ["bias", "kernel", "embedding", "bias", "gain"])

OPTIMIZERS = {
    "accumulate": opt.accumulate(ADAM, 2),
    "adax": opt.adax(0.1),
    "clip_by_leaf_l1_norm": opt.clip_by_leaf_l1_norm(0.1),
    "clip_by_leaf_norm": opt.clip_by_leaf_norm(0.1),
    "finite_ema": opt.finite_ema(0.9),
    "hidden_accumulation": opt.hidden_accumulation(optax.scale(-0.1), 2),
    "jose_sgd": opt.jose_sgd(0.1),
    "lamb": opt.lamb(
        0.1, adapted=opt.by_path({"norm|bias": False, "": True}), stacked=opt.by_path(LAYERS)
    ),
    "lamb of a module": opt.lamb(0.1, adapted=put("modules", MASK), stacked=put("modules", MASK)),
    "lazy_rows": opt.lazy_rows(ADAM, opt.by_path(TABLES)),
    "lazy_rows of a module": opt.lazy_rows(ADAM, put("modules", MASK)),
    "lazy_updates": opt.lazy_updates(ADAM, opt.by_path(TABLES)),
    "lazy_updates of a module": opt.lazy_updates(ADAM, put("modules", MASK)),
    "lookahead": opt.lookahead(ADAM, 2),
    "map_gradients": opt.map_gradients({"embedding$": jnp.sign}, default=lambda g: -g),
    "project_by_cosine": opt.project_by_cosine(),
    "project_to_tangent": opt.project_to_tangent(),
    "retract_to_sphere": opt.retract_to_sphere(),
    "scale_by_adax": opt.scale_by_adax(),
    "scale_by_layer_trust_ratio": opt.scale_by_layer_trust_ratio(opt.by_path(LAYERS)),
    "scale_by_row_rms": opt.scale_by_row_rms(),
    "scale_by_tree": opt.scale_by_tree(opt.by_path(RATES)),
    "scale_by_tree of a dict": opt.scale_by_tree(VALUES),
    "scale_by_tree of a module": opt.scale_by_tree(put("modules", VALUES)),
    "scale_by_tree of an nnx.State": opt.scale_by_tree(put("nnx.State", VALUES)),
    "layer_wise_decay": opt.scale_by_tree(opt.layer_wise_decay(DEPTHS, 0.5, 3)),
    "sgld": opt.sgld(0.1, 0.5, KEY),
    "shrink_where_nan": opt.shrink_where_nan(),
    "sphere_sgd": opt.sphere_sgd(0.1),
    "tiger": opt.tiger(0.1),
    "tiger, labelled by a module": opt.tiger(0.1, labels=LABELS),
    "underdamped_langevin": opt.underdamped_langevin(0.3, 1.0, 0.5, KEY),
    "by_path in partition": optax.partition(
        {
            "rows": optax.chain(ADAM, opt.scale_by_tree(opt.by_path(RATES))),
            "rest": opt.lazy_rows(opt.tiger(0.1), opt.by_path(TABLES)),
        },
        opt.by_path({"embedding$": "rows"}, default="rest"),
    ),
    "by_path in masked": optax.masked(
        opt.map_gradients({"scale$": jnp.sign, "kernel$": jnp.sign}, default=lambda g: 2 * g),
        opt.by_path({"norm/": True}, default=False),
    ),
}


def loss(model):
    return jnp.sum(jnp.sin(3 * model(TOKENS)))


@jax.jit
def gradient(params):
    """A dict like the parameters."""
    nnx_model = nnx.merge(nnx.graphdef(MODEL), put("nnx.State", params))
    return nnx.to_pure_dict(nnx.grad(loss)(nnx_model))


def train(optimizer, name, steps):
    """Parameters after the steps, as a list."""
    params = put(name, PARAMS)
    state = optimizer.init(params)
    for given in steps:
        updates, state = optimizer.update(put(name, given), state, params)
        params = optax.apply_updates(params, updates)
    return jax.tree.leaves(params)


def train_nnx(optimizer, steps):
    """The same by `nnx.Optimizer`."""
    trained = nnx.clone(MODEL)
    rule = nnx.Optimizer(trained, optimizer, wrt=nnx.Param)
    for given in steps:
        rule.update(trained, put("nnx.State", given))
    return jax.tree.leaves(nnx.state(trained, nnx.Param))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_are_the_same_in_every_container(name):
    def run(steps):
        optimizer = OPTIMIZERS[name]
        found = {container: train(optimizer, container, steps) for container in CONTAINERS}
        return found | {"nnx.Optimizer": train_nnx(optimizer, steps)}

    # Operations on their own are compiled once for all containers, but a cond at every call.
    run = jax.jit(run) if "accumulat" in name else run
    first = gradient(PARAMS)
    found = run([first, jax.tree.map(lambda g: jnp.cos(7 * g) * g, first)])
    expected = found.pop("dict")
    moved = [np.abs(a - b).max() for a, b in zip(expected, jax.tree.leaves(PARAMS), strict=True)]
    assert max(moved) > 1e-3
    for container, leaves in found.items():
        for actual, leaf in zip(leaves, expected, strict=True):
            np.testing.assert_allclose(actual, leaf, rtol=1e-6, atol=1e-6, err_msg=container)
