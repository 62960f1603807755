"""Values for the leaves of a tree, by regular expressions on their paths."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxgen.arguments import require


def by_path(rules: Mapping[str, Any], default=None) -> Callable[[Any], Any]:
    """A function from a tree to the tree of values that ordered rules give its leaves.

    Each leaf gets the value of the first rule found (`re.search`) in its path, the keys joined by
    slashes: "encoder/layer_0/kernel". The result serves wherever optax takes a tree or a function
    of the parameters:

        scale_by_tree(by_path({"head": 1.0, "": 0.1}))                learning-rate scales
        optax.partition(transforms, by_path({"embed": "rows", "": "rest"}))           labels
        optax.add_decayed_weights(1e-2, mask=by_path({"kernel$": True}, default=False))

    Args:
      rules: {regex: value}; the first match wins, "" matches every leaf. A value may be a
        pytree; it then becomes a subtree.
      default: of leaves without a rule; None: each leaf must have one.

    Returns:
      tree -> tree of the same structure. It raises a ValueError for a rule that matches no leaf
      (a misspelled name would otherwise do nothing, silently) and for a leaf without a rule.
    """
    _check_rules("by_path", rules)

    def values(tree):
        found = {name: value for name, _, value, _ in _matches("by_path", rules, default, tree)}
        return jax.tree.map_with_path(lambda path, _: found[_name(path)], tree)

    return values


def layer_wise_decay(
    layers: Mapping[str, Any], decay: float, n_layers: int
) -> Callable[[Any], Any]:
    r"""Learning-rate scales that fall from the head to the embeddings: decay^(n_layers - layer).

    The layer-wise learning rate of ELECTRA, BEiT and MAE fine-tuning: embeddings are layer 0,
    blocks follow, the head is layer n_layers and keeps the whole rate. For `scale_by_tree`:

        scale_by_tree(layer_wise_decay(
            {"embed": 0, r"block_(\d+)/": lambda found: 1 + int(found[1]), "head": 13}, 0.75, 13))

    Args:
      layers: ordered {regex on the path: layer}, as in `by_path`, every leaf by one of them. A
        layer is an integer in [0, n_layers]; a sequence of them, for a leaf whose first axis
        stacks layers (as `nn.scan` does: range(1, 13) for 12 blocks behind the embeddings); or a
        function of the `re.Match` that returns one or the other. A function of the whole path is
        {"^.*": lambda found: function(found[0])}.
      decay: of a layer against the one above it, > 0, usually 0.65 to 0.9; 1 scales nothing.
      n_layers: number of the last layer.

    Returns:
      tree -> multipliers: a float, or an array [L, 1, ..., 1] for a stacked leaf [L, ...]. Raises
      a ValueError as `by_path` does, and for a layer out of range or of another number than L.
    """
    require(decay=decay, above=0)
    require(n_layers=n_layers, least=0)
    _check_rules("layer_wise_decay", layers)

    def scale(name, leaf, layer):
        numbers = np.asarray(layer)
        if numbers.dtype.kind not in "iu" or not ((numbers >= 0) & (numbers <= n_layers)).all():
            raise ValueError(
                f"layer_wise_decay: layer {layer!r} of {name}; expected integers in [0, {n_layers}]"
            )
        if numbers.ndim == 0:
            return decay ** (n_layers - int(numbers))
        if numbers.shape != np.shape(leaf)[:1]:
            raise ValueError(
                f"layer_wise_decay: {numbers.size} layers {layer} of {name};"
                f" expected as many as its first axis has, shape {np.shape(leaf)}"
            )
        scales = float(decay) ** (n_layers - numbers)
        return scales.reshape(-1, *[1] * (np.ndim(leaf) - 1))

    def multipliers(tree):
        found = {
            name: scale(name, leaf, layer(match) if callable(layer) else layer)
            for name, leaf, layer, match in _matches("layer_wise_decay", layers, None, tree)
        }
        return jax.tree.map_with_path(lambda path, _: found[_name(path)], tree)

    return multipliers


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _check_rules(where: str, rules: Mapping[str, Any]) -> None:
    for rule in rules:
        try:
            re.compile(rule)
        except (re.error, TypeError) as error:
            raise ValueError(f"{where}: rule {rule!r}; expected a regex ({error})") from None


def _matches(where: str, rules: Mapping[str, Any], default, tree) -> Iterator[tuple]:
    """(path, leaf, value, match or None) of every leaf; see `by_path` for what is raised."""
    leaves = [(_name(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]
    names = [name for name, _ in leaves]
    for rule in rules:
        if not any(re.search(rule, name) for name in names):
            raise ValueError(
                f"{where}: unknown path rule {rule!r}; expected one that matches a leaf of"
                f" {_some(names)}"
            )
    for name, leaf in leaves:
        for rule, value in rules.items():
            if match := re.search(rule, name):
                yield name, leaf, value, match
                break
        else:
            if default is None:
                raise ValueError(f"{where}: {name} has no rule; expected one of {_some(rules)}")
            yield name, leaf, default, None


def _some(names: Sequence[str] | Mapping[str, Any], count: int = 5) -> str:
    shown = [repr(name) for name in names][:count]
    return ", ".join(shown) + (f", ... ({len(names)} in all)" if len(names) > count else "")
