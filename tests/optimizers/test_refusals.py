"""What the room refuses: one line that names the argument, its value and what was expected."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import optimizers as opt

KEY = jax.random.key(0)
NAN = float("nan")
SGD = optax.sgd(0.1)
PARAMS = {
    "embed": {"table": np.ones((5, 2))},
    "blocks": [{"kernel": np.ones((2, 2)), "bias": np.ones(2)} for _ in range(2)],
    "head": {"kernel": np.ones((2, 3))},
}
PAIR = {"a": np.ones((2, 3)), "b": [np.ones(2)]}
TABLES = {"table": np.ones((4, 3)), "kernel": np.ones((4, 3))}
SCALAR, ROWS = np.ones(()), {"a": np.ones((2, 2))}
INTEGER = {"a": np.zeros(2, jax.dtypes.float0), "b": np.ones(2, np.float32)}
INTEGERS = {"a": np.ones(2, np.int32), "b": np.ones(2, np.float32)}
COMPLEX = {"a": np.ones((2, 2), np.complex64)}


def updated(rule, updates, params=None, **extra_args):
    """Traces init and update."""

    def call():
        given = updates if params is None else params
        jax.eval_shape(lambda: rule.update(updates, rule.init(given), params, **extra_args)[0])

    return call


def by_path(rules, default=None):
    return lambda: opt.by_path(rules, default)(PARAMS)


def decayed(layer, tree=PARAMS):
    rules = {"embed": 0, r"blocks/(\d+)": layer, "head": 3}
    return lambda: opt.layer_wise_decay(rules, 0.5, 3)(tree)


def scaled(multipliers, at="init"):
    rule = opt.scale_by_tree(multipliers)
    if at == "init":
        return lambda: rule.init(PAIR)
    return lambda: jax.eval_shape(rule.update, PAIR, optax.EmptyState())


def mapped(functions, tree):
    return updated(opt.map_gradients(functions), tree)


def flow(theta):
    return theta


# Every optimizer, as it is made with the least.
RULES = {
    "accumulate": opt.accumulate(SGD, 2),
    "adax": opt.adax(0.1),
    "clip_by_leaf_l1_norm": opt.clip_by_leaf_l1_norm(1.0),
    "clip_by_leaf_norm": opt.clip_by_leaf_norm(1.0),
    "finite_ema": opt.finite_ema(0.9),
    "hidden_accumulation": opt.hidden_accumulation(SGD, 2),
    "jose_sgd": opt.jose_sgd(0.1),
    "lamb": opt.lamb(0.1),
    "lazy_rows": opt.lazy_rows(SGD, {"a": True, "b": False}),
    "lazy_updates": opt.lazy_updates(SGD, {"a": True, "b": False}),
    "lookahead": opt.lookahead(SGD),
    "map_gradients": opt.map_gradients({"": jnp.sign}),
    "scale_by_layer_trust_ratio": opt.scale_by_layer_trust_ratio(),
    "scale_by_row_rms": opt.scale_by_row_rms(),
    "scale_by_tree": opt.scale_by_tree({"a": 1.0, "b": 1.0}),
    "sgld": opt.sgld(0.1, 1.0, KEY),
    "shrink_where_nan": opt.shrink_where_nan(),
    "sphere_sgd": opt.sphere_sgd(0.1),
    "tiger": opt.tiger(0.1),
    "underdamped_langevin": opt.underdamped_langevin(0.1, 1.0, 1.0, KEY),
}
REAL = ("jose_sgd", "scale_by_row_rms", "sgld", "sphere_sgd", "tiger", "underdamped_langevin")
ON_SPHERE = {
    "project_to_tangent": opt.project_to_tangent(),
    "project_by_cosine": opt.project_by_cosine(),
    "retract_to_sphere": opt.retract_to_sphere(),
}

UNITS, WHERE, ONES = jnp.eye(3), jnp.zeros(2, int), jnp.ones(2)

REFUSES = [
    # Rows.
    ("limit 0; exp", lambda: opt.add_to_unit_rows(UNITS, WHERE, jnp.ones((2, 3)), ONES, 0)),
    (r"steps \(2, 2\); exp", lambda: opt.add_to_unit_rows(UNITS, WHERE, UNITS[:2, :2], ONES, 1)),
    (r"counts \(3,\); exp", lambda: opt.add_to_unit_rows(UNITS, WHERE, UNITS[:2], UNITS[0], 1)),
    ("rows float32; exp", lambda: opt.add_to_unit_rows(UNITS, ONES, UNITS[:2], ONES, 1)),
    # Numbers.
    *[
        (f"k {k}; expected an integer >= 1", lambda make=make, k=k: make(SGD, k))
        for make in (opt.accumulate, opt.hidden_accumulation)
        for k in (0, -1, 2.0, None, True)
    ],
    ("decay -0.1; expected", lambda: opt.hidden_accumulation(SGD, 2, -0.1)),
    ("decay 1.1; expected", lambda: opt.hidden_accumulation(SGD, 2, 1.1)),
    ("weight -1.0; expected a number >= 0", updated(opt.accumulate(SGD, 2), ROWS, weight=-1.0)),
    ("b1 1.5", lambda: opt.scale_by_adax(b1=1.5)),
    ("b2 0.0", lambda: opt.scale_by_adax(b2=0.0)),
    ("eps -1.0", lambda: opt.scale_by_adax(eps=-1.0)),
    ("max_norm 0; expected a finite", lambda: opt.clip_by_leaf_norm(0)),
    ("max_norm 0; expected a finite", lambda: opt.clip_by_leaf_l1_norm(0)),
    *[
        (rf"decay {d}; expected a number in \[0, 1\]", lambda d=d: opt.update_ema(ROWS, ROWS, 1, d))
        for d in (-0.1, 1.5, NAN)
    ],
    ("period 0", lambda: opt.lookahead(SGD, 0)),
    ("period 2.5; expected an integer >= 1", lambda: opt.lookahead(SGD, 2.5)),
    ("period True; expected an integer >= 1", lambda: opt.lookahead(SGD, True)),
    ("slow_step 1.5", lambda: opt.lookahead(SGD, 5, 1.5)),
    ("slow_step -0.1", lambda: opt.lookahead(SGD, 5, -0.1)),
    ("decay 1.5", lambda: opt.finite_ema(1.5)),
    ("min_scale -1.0", lambda: opt.scale_by_row_rms(-1.0)),
    ("shrink 1.5", lambda: opt.shrink_where_nan(1.5)),
    ("weight_decay -1.0", lambda: opt.tiger(0.1, weight_decay=-1.0)),
    ("decay -0.1", lambda: opt.tiger(0.1, decay=-0.1)),
    ("min_scale -1.0", lambda: opt.tiger(0.1, min_scale=-1.0)),
    ("shrink -1.0", lambda: opt.tiger(0.1, shrink=-1.0)),
    ("b1 -0.1; expected a finite number >= 0", lambda: opt.lamb(0.1, b1=-0.1)),
    ("1 - b1 0.0; expected a finite number > 0", lambda: opt.lamb(0.1, b1=1.0)),
    ("1 - b2 -0.5", lambda: opt.lamb(0.1, b2=1.5)),
    ("eps -1.0", lambda: opt.lamb(0.1, eps=-1.0)),
    ("weight_decay -1.0", lambda: opt.lamb(0.1, weight_decay=-1.0)),
    ("temperature 0.0", lambda: opt.sgld(0.1, 0.0, KEY)),
    ("learning_rate -0.1", lambda: opt.sgld(-0.1, 1.0, KEY)),
    ("step 0.0", lambda: opt.underdamped_langevin(0.0, 1.0, 1.0, KEY)),
    ("friction -1.0", lambda: opt.underdamped_langevin(0.1, -1.0, 1.0, KEY)),
    ("temperature 0.0", lambda: opt.underdamped_langevin(0.1, 1.0, 0.0, KEY)),
    ("learning_rate 0.0", lambda: opt.step_and_friction(0.0, 0.9)),
    ("momentum -1.0", lambda: opt.step_and_friction(0.1, -1.0)),
    ("momentum 1.1", lambda: opt.step_and_friction(0.1, 1.1)),
    ("step -0.1", lambda: opt.learning_rate_and_momentum(-0.1, 1.0)),
    ("friction -1.0", lambda: opt.learning_rate_and_momentum(0.1, -1.0)),
    ("first_time -1.0", lambda: opt.adam_flow(flow, -1.0, 1.0)),
    ("second_time 0.0", lambda: opt.adam_flow(flow, 1.0, 0.0)),
    ("eps -1.0", lambda: opt.adam_flow(flow, 1.0, 1.0, -1.0)),
    ("step -0.1", lambda: opt.modified_loss(jnp.sum, -0.1)),
    ("substeps 0", lambda: opt.integrate(flow, 1.0, 1.0, 0)),
    ("substeps 2.5; expected an integer", lambda: opt.integrate(flow, 1.0, 1.0, 2.5)),
    ("substeps True; expected an integer", lambda: opt.integrate(flow, 1.0, 1.0, True)),
    ("steps 2.5; expected an integer", lambda: opt.trajectory(flow, 1.0, 1.0, 2.5)),
    ("steps 0", lambda: opt.trajectory(flow, 1.0, 1.0, 0)),
    ("substeps 0", lambda: opt.trajectory(flow, 1.0, 1.0, 1, 0)),
    # Paths.
    (r"^unknown path rule 'haed'.*'blocks/0/bias'", by_path({"haed": 1, "": 0})),
    (r"^embed/table has no rule.*'kernel', 'bias'", by_path({"kernel": 1, "bias": 2})),
    (r"^rule '\('; expected a regex", by_path({"(": 1})),
    ("rule 1; expected a regex", by_path({1: 0})),
    *[
        (r"layer .* of blocks/0/.*; expected integers in \[0, 3\]", decayed(layer))
        for layer in (4, -1, 0.5, [0, 4], "1")
    ],
    (r"3 layers .* of blocks/0/.*shape \(2,", decayed([1, 2, 3])),
    ("decay 0; expected a finite number > 0", lambda: opt.layer_wise_decay({}, 0, 1)),
    ("n_layers -1", lambda: opt.layer_wise_decay({}, 0.5, -1)),
    ("n_layers 2.5; expected an integer", lambda: opt.layer_wise_decay({}, 0.5, 2.5)),
    ("unknown path rule 'x'", lambda: opt.layer_wise_decay({"x": 0}, 0.5, 1)(PARAMS)),
    ("rule 1; expected a regex", lambda: opt.layer_wise_decay({1: 0}, 0.5, 1)),
    ("unknown path rule 'c'", mapped({"c": jnp.sign, "": jnp.sign}, ROWS)),
    ("b/0 has no rule", mapped({"a": jnp.sign}, PAIR)),
    (r"function of a returns \(\); expected \(2", mapped({"a": jnp.sum}, ROWS)),
    # Trees.
    *[
        (message, scaled(multipliers, at))
        for at in ("init", "update")
        for message, multipliers in (
            ("b/0 has no multiplier", {"a": 1.0}),
            ("b/1 has a multiplier and no update", {"a": 1.0, "b": [1.0, 2.0]}),
            (r"multiplier of a has shape \(3,\)", {"a": np.ones(3), "b": [1.0]}),
            (
                r"of a has shape \(3, 1\).*broadcasts to \(2, 3\)",
                {"a": np.ones((3, 1)), "b": [1.0]},
            ),
        )
    ],
    ("wheel", lambda: opt.tiger(0.1, labels={"a": "wheel"}).init(ROWS)),
    ("a has no label", lambda: opt.tiger(0.1, labels={"b": "kernel"}).init(ROWS)),
    ("kernel has no value in `adapted`", updated(opt.lamb(1, adapted={"table": True}), TABLES)),
    ("kernel has no value in `st", updated(opt.lamb(1, stacked={"table": True}), TABLES, TABLES)),
    (r"stacked True .* shape \(\)", updated(opt.lamb(1, stacked=True), SCALAR, SCALAR)),
    *[
        row
        for wrap in (opt.lazy_updates, opt.lazy_rows)
        for row in (
            ("kernel has no mask; expected trees", updated(wrap(SGD, {"table": True}), TABLES)),
            (r"mask True for a leaf of shape \(\)", updated(wrap(SGD, True), SCALAR)),
        )
    ],
    ("Dict key mismatch|dict", lambda: opt.update_ema({"a": SCALAR}, {"b": SCALAR}, 1)),
    # Parameters and gradients.
    *[
        ("params None; expected the parameters in `update`", updated(rule, ROWS))
        for rule in (
            *ON_SPHERE.values(),
            opt.lamb(0.1),
            opt.lookahead(SGD),
            opt.scale_by_layer_trust_ratio(),
            opt.scale_by_row_rms(),
            opt.shrink_where_nan(),
        )
    ],
    *[
        (r"'a' has shape \(\); expected unit", updated(rule, {"a": SCALAR}, {"a": SCALAR}))
        for rule in ON_SPHERE.values()
    ],
    (r"embedding of shape \(\)", updated(opt.scale_by_row_rms(), SCALAR, SCALAR)),
    *[
        ("update of 'a' is float0; expected floats", updated(rule, INTEGER, INTEGERS))
        for rule in RULES.values()
    ],
    *[
        ("update of 'a' is complex64; expected real", updated(RULES[name], COMPLEX, COMPLEX))
        for name in REAL
    ],
]


@pytest.mark.parametrize("message, call", REFUSES)
def test_refuses(message, call):
    with pytest.raises(ValueError, match=message):
        call()
