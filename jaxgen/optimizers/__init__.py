"""Gradient transformations that optax lacks, and optimizers as dynamical systems.

Fine-tuning with AdamW, smaller steps in lower layers, and eight micro-batches per step:

    rates = layer_wise_decay({"embed": 0, "block": 1, "head": 2}, decay=0.75, n_layers=2)
    optimizer = accumulate(optax.chain(optax.adamw(1e-3), scale_by_tree(rates)), k=8)

Paths, labels and masks are the same for Linen, NNX and any other tree of parameters:

    optimizer = nnx.Optimizer(model, tiger(1e-3), wrt=nnx.Param)
    optimizer.update(model, nnx.grad(loss)(model))
"""

from jaxgen.optimizers.accumulation import (
    AccumulateState,
    HiddenAccumulationState,
    accumulate,
    hidden_accumulation,
)
from jaxgen.optimizers.adax import ScaleByAdaxState, adax, scale_by_adax
from jaxgen.optimizers.dynamics import (
    Adapting,
    Moving,
    adam_flow,
    gradient_flow,
    heavy_ball_flow,
    learning_rate_and_momentum,
    modified_loss,
    sign_flow,
    step_and_friction,
)
from jaxgen.optimizers.ema import update_ema
from jaxgen.optimizers.gradient_ops import clip_by_leaf_l1_norm, clip_by_leaf_norm, map_gradients
from jaxgen.optimizers.integrators import (
    euler,
    heun,
    integrate,
    leapfrog,
    leapfrog_start,
    rk4,
    trajectory,
)
from jaxgen.optimizers.lamb import lamb, scale_by_layer_trust_ratio
from jaxgen.optimizers.langevin import LangevinState, SgldState, sgld, underdamped_langevin
from jaxgen.optimizers.lazy import lazy_rows, lazy_updates
from jaxgen.optimizers.lookahead import LookaheadState, lookahead
from jaxgen.optimizers.paths import by_path, layer_wise_decay
from jaxgen.optimizers.rows import add_to_unit_rows
from jaxgen.optimizers.scaling import scale_by_tree
from jaxgen.optimizers.sphere import (
    jose_sgd,
    project_by_cosine,
    project_to_tangent,
    retract_to_sphere,
    sphere_sgd,
)
from jaxgen.optimizers.tiger import (
    FiniteEmaState,
    finite_ema,
    scale_by_row_rms,
    shrink_where_nan,
    tiger,
    tiger_labels,
)

__all__ = [
    "AccumulateState",
    "Adapting",
    "FiniteEmaState",
    "HiddenAccumulationState",
    "LangevinState",
    "LookaheadState",
    "Moving",
    "ScaleByAdaxState",
    "SgldState",
    "accumulate",
    "adam_flow",
    "adax",
    "add_to_unit_rows",
    "by_path",
    "clip_by_leaf_l1_norm",
    "clip_by_leaf_norm",
    "euler",
    "finite_ema",
    "gradient_flow",
    "heavy_ball_flow",
    "heun",
    "hidden_accumulation",
    "integrate",
    "jose_sgd",
    "lamb",
    "layer_wise_decay",
    "lazy_rows",
    "lazy_updates",
    "leapfrog",
    "leapfrog_start",
    "learning_rate_and_momentum",
    "lookahead",
    "map_gradients",
    "modified_loss",
    "project_by_cosine",
    "project_to_tangent",
    "retract_to_sphere",
    "rk4",
    "scale_by_adax",
    "scale_by_layer_trust_ratio",
    "scale_by_row_rms",
    "scale_by_tree",
    "sgld",
    "shrink_where_nan",
    "sign_flow",
    "sphere_sgd",
    "step_and_friction",
    "tiger",
    "tiger_labels",
    "trajectory",
    "underdamped_langevin",
    "update_ema",
]
