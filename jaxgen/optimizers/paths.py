"""Values for the leaves of a tree, by regular expressions on their paths.

A path is the leaf's keys joined by slashes, such as "encoder/layer_0/kernel". It ends in the
parameter's own name in every container: dicts, dataclasses, named tuples, `nnx.State`, and boxes
such as `nnx.Param` and `nn.Partitioned`, whose only entry is called `value`.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from jaxgen.arguments import require, require_integer


def by_path(rules: Mapping[str, Any], default=None) -> Callable[[Any], Any]:
    """Assigns values to the leaves of a tree by ordered rules on their paths.

    A path is the leaf's keys joined by slashes, such as "encoder/layer_0/kernel", and the same for
    Linen, NNX and plain trees. Each leaf gets the value of the first rule that matches its path
    (`re.search`). The result can be passed to optax wherever it takes a tree or a function of the
    parameters:

        scale_by_tree(by_path({"head": 1.0, "": 0.1}))                learning-rate scales
        optax.partition(transforms, by_path({"embed": "rows", "": "rest"}))           labels
        optax.add_decayed_weights(1e-2, mask=by_path({"kernel$": True}, default=False))

    Args:
      rules: {regex: value}; the first match wins, "" matches every leaf. A value may be a
        pytree; it then becomes a subtree.
      default: value for leaves that match no rule; if None, every leaf must match one.

    Returns:
      A function tree -> tree of the same structure. It raises a ValueError if a rule matches no
      leaf (a misspelled rule would otherwise be ignored silently) or a leaf matches no rule. In a
      tree without leaves, and where `optax.masked` or `optax.partition` hides some, a rule may
      match none.
    """
    check_rules(rules)

    def values(tree):
        found = [value for _, _, value, _ in matches(rules, default, tree)]
        return jax.tree.unflatten(jax.tree.structure(tree), found)

    return values


def layer_wise_decay(
    layers: Mapping[str, Any], decay: float, n_layers: int
) -> Callable[[Any], Any]:
    r"""Layer-wise learning-rate decay: each leaf is scaled by decay^(n_layers - layer).

    Used in the fine-tuning of ELECTRA, BEiT and MAE. Embeddings are layer 0, blocks follow, and the
    head is layer n_layers and keeps the full rate. For use in `scale_by_tree`:

        scale_by_tree(layer_wise_decay(
            {"embed": 0, r"block_(\d+)/": lambda found: 1 + int(found[1]), "head": 13}, 0.75, 13))

    Args:
      layers: ordered {regex on the path: layer}, as in `by_path`; every leaf must match one. A
        layer is an integer in [0, n_layers]; a sequence of integers, for a leaf whose first axis
        stacks layers (as `nn.scan` does: range(1, 13) for 12 blocks after the embeddings); or a
        function of the `re.Match` that returns either. To use a function of the whole path, pass
        {"^.*": lambda found: function(found[0])}.
      decay: factor between a layer and the one above it, > 0, usually 0.65 to 0.9; 1 has no effect.
      n_layers: index of the last layer, >= 0.

    Returns:
      A function tree -> multipliers: a float, or an array [L, 1, ..., 1] for a stacked leaf
      [L, ...]. It raises a ValueError as `by_path` does, if a layer is out of range, or if a
      stacked leaf has a number of layers other than L.
    """
    require(decay=decay, above=0)
    require_integer(least=0, n_layers=n_layers)
    check_rules(layers)

    def scale(name, leaf, layer):
        numbers = np.asarray(layer)
        if numbers.dtype.kind not in "iu" or not ((numbers >= 0) & (numbers <= n_layers)).all():
            raise ValueError(f"layer {layer!r} of {name}; expected integers in [0, {n_layers}]")
        if numbers.ndim == 0:
            return decay ** (n_layers - int(numbers))
        if numbers.shape != np.shape(leaf)[:1]:
            raise ValueError(
                f"{numbers.size} layers {layer} of {name};"
                f" expected as many as its first axis has, shape {np.shape(leaf)}"
            )
        scales = float(decay) ** (n_layers - numbers)
        return scales.reshape(-1, *[1] * (np.ndim(leaf) - 1))

    def multipliers(tree):
        found = [
            scale(name, leaf, layer(match) if callable(layer) else layer)
            for name, leaf, layer, match in matches(layers, None, tree)
        ]
        return jax.tree.unflatten(jax.tree.structure(tree), found)

    return multipliers


def named_leaves(tree) -> list[tuple[str, Any]]:
    """(path, leaf) of every leaf, in order."""
    return [(name, leaf) for name, leaf in _named(tree) if not _is_masked(leaf)]


def _named(tree) -> list[tuple[str, Any]]:
    """`named_leaves`, with the placeholders of `optax.masked` and `optax.partition`."""
    found = jax.tree.leaves_with_path(tree, is_leaf=lambda x: x is None or _is_masked(x))
    entries: dict[tuple, set] = {}
    for path, _ in found:
        for depth, entry in enumerate(path):
            entries.setdefault(path[:depth], set()).add(entry)

    def name(path):
        kept = [e for i, e in enumerate(path) if not i or entries[path[:i]] != {_VALUE}]
        return jax.tree_util.keystr(tuple(kept), simple=True, separator="/")

    return [(name(path), leaf) for path, leaf in found if leaf is not None]


# The one entry of `nnx.Param`, `nn.Partitioned` and other boxes around a leaf.
_VALUE = jax.tree_util.GetAttrKey("value")


def _is_masked(x) -> bool:
    return isinstance(x, optax.MaskedNode)


def values_like(values, tree, kind: str):
    """The leaves of `values`, or of values(tree) if it is a function, in the containers of `tree`.

    Leaves belong together if their paths are equal, so a dict of values fits an `nnx.State`.

    Args:
      values: a tree, or a function from `tree` to one. A module is a tree although it is callable.
      tree: the tree to fit; `optax.masked` and `optax.partition` may hide some of its leaves.
      kind: what messages call a leaf of `values`.

    Raises:
      ValueError: a leaf of one tree is missing in the other; a tree without leaves fits all values.
    """
    found = dict(named_leaves(values(tree) if _is_function(values) else values))
    names = [name for name, _ in named_leaves(tree)]
    for name in names:
        if name not in found:
            raise ValueError(f"{name} has no {kind}; expected trees that match")
    unused = found.keys() - set(names)
    if unused and names and not _hides(tree):
        raise ValueError(f"{min(unused)} has a {kind} and no update; expected trees that match")
    return jax.tree.unflatten(jax.tree.structure(tree), [found[name] for name in names])


def _hides(tree) -> bool:
    """Whether `optax.masked` or `optax.partition` hides leaves: their paths are not known."""
    return any(_is_masked(leaf) for _, leaf in _named(tree))


def _is_function(x) -> bool:
    if isinstance(x, functools.partial):  # `jax.tree_util.Partial` is a tree too
        return True
    return callable(x) and all(leaf is x for leaf in jax.tree.leaves(x))


def check_rules(rules: Mapping[str, Any]) -> None:
    """Every rule is a regex."""
    for rule in rules:
        try:
            re.compile(rule)
        except (re.error, TypeError) as error:
            raise ValueError(f"rule {rule!r}; expected a regex ({error})") from None


def matches(rules: Mapping[str, Any], default, tree) -> Iterator[tuple]:
    """Yields (path, leaf, value, match or None) for every leaf, in order; raises as `by_path`."""
    leaves = named_leaves(tree)
    names = [name for name, _ in leaves]
    for rule in rules:
        if names and not any(re.search(rule, name) for name in names) and not _hides(tree):
            raise ValueError(
                f"unknown path rule {rule!r}; expected one that matches a leaf of {_some(names)}"
            )
    for name, leaf in leaves:
        for rule, value in rules.items():
            if match := re.search(rule, name):
                yield name, leaf, value, match
                break
        else:
            if default is None:
                raise ValueError(f"{name} has no rule; expected one of {_some(rules)}")
            yield name, leaf, default, None


def _some(names: Sequence[str] | Mapping[str, Any], count: int = 5) -> str:
    shown = [repr(name) for name in names][:count]
    return ", ".join(shown) + (f", ... ({len(names)} in all)" if len(names) > count else "")
