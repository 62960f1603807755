"""What optax lacks, as optax transformations; and optimizers as dynamical systems.

rates = layer_wise_decay({"embed": 0, "block": 1, "head": 2}, decay=0.75, n_layers=2)
optimizer = accumulate(optax.chain(optax.adamw(1e-3), scale_by_tree(rates)), k=8)
"""

from jaxgen.optimizers.accumulation import (
    AccumulateState,
    HiddenAccumulationState,
    accumulate,
    hidden_accumulation,
)
from jaxgen.optimizers.gradient_ops import (
    clip_by_leaf_l1_norm,
    clip_by_leaf_norm,
    map_gradients,
)
from jaxgen.optimizers.paths import by_path, layer_wise_decay
from jaxgen.optimizers.scaling import scale_by_tree

__all__ = [
    "AccumulateState",
    "HiddenAccumulationState",
    "accumulate",
    "by_path",
    "clip_by_leaf_l1_norm",
    "clip_by_leaf_norm",
    "hidden_accumulation",
    "layer_wise_decay",
    "map_gradients",
    "scale_by_tree",
]
