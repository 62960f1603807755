"""Counts of programs whose needs can be written down."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.lib import compiled

MESH = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
SPLIT, WHOLE = NamedSharding(MESH, P("data")), NamedSharding(MESH, P())


def spec(*shape, sharding=None):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)


def compile_(function, *arguments, **options):
    return jax.jit(function, **options).lower(*arguments).compile()


@pytest.mark.parametrize("length", [1, 7])
def test_a_loop_counts_as_often_as_it_runs(length):
    def f(x, w):
        return lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=length)[0]

    counts = compiled.count(compile_(f, spec(32, 64), spec(64, 64)).as_text())
    products = length * 2 * 32 * 64 * 64
    assert products <= counts.flops <= 1.1 * products
    assert counts.unknown_loops == 0


def test_flops_of_a_program_without_loops_are_those_of_xla():
    def f(x, w):
        return jnp.sum((x @ w) ** 2, axis=1) + 1

    program = compile_(f, spec(32, 64), spec(64, 16))
    flops = program.cost_analysis()["flops"]
    assert compiled.count(program.as_text()).flops == pytest.approx(flops, rel=0.02)


def test_gradients_are_exchanged_once():
    def step(w, x):
        return w - jax.grad(lambda w: jnp.mean((x @ w) ** 2))(w)

    shardings = {"in_shardings": (WHOLE, SPLIT), "out_shardings": WHOLE}
    program = compile_(step, spec(16, 4), spec(64, 16), **shardings)
    (one,) = compiled.count(program.as_text()).collectives
    assert one == compiled.Collective("all-reduce", 4 * 16 * 4, 8, 1)
    assert one.sent == 2 * 7 / 8 * 256


def test_collectives_within_a_loop_count_as_often_as_it_runs():
    def f(x):
        return lax.scan(lambda c, _: (c + jnp.sum(jnp.sin(x * c)), None), jnp.float32(1), length=5)

    program = compile_(lambda x: f(x)[0], spec(64), in_shardings=SPLIT, out_shardings=WHOLE)
    (one,) = compiled.count(program.as_text()).collectives
    assert (one.kind, one.bytes, one.times) == ("all-reduce", 4, 5)


def test_memory_is_what_the_compiler_plans():
    program = compile_(lambda x: x + 1, spec(1024), donate_argnums=0)
    memory = compiled.memory(program)
    assert (memory.arguments, memory.outputs, memory.in_place) == (4096, 4096, 4096)
    assert memory.total == 4096 + memory.temporaries + memory.code


class State(NamedTuple):
    params: Any
    average: Any
    optimizer: Any
    count: Any


def test_parameters_are_told_from_what_goes_with_them():
    params = {"kernel": jnp.zeros((3, 5)), "bias": jnp.zeros(5, jnp.bfloat16)}
    optimizer = optax.chain(optax.clip(1.0), optax.adam(1e-3))
    state = State(params, params, optimizer.init(params), jnp.zeros((), jnp.int32))
    assert compiled.trained_bytes(state) == 4 * 15 + 2 * 5
    assert compiled.trained_bytes({"a": state, "b": jax.eval_shape(lambda: state)}) == 140


HEAD = "HloModule m, num_partitions=16\n\n"


def collective(line, operand="f32[8]{0}"):
    text = (
        f"{HEAD}ENTRY %main (x: f32[8]) -> f32[8] {{\n  %x = {operand} parameter(0)\n{line}\n}}\n"
    )
    return compiled.count(text).collectives


@pytest.mark.parametrize(
    ("line", "expected", "sent"),
    [
        (
            "  ROOT %r = f32[8]{0} all-reduce(%x), replica_groups={{0,1},{2,3}}, to_apply=%s",
            ("all-reduce", 32, 2),
            32,
        ),
        (
            "  ROOT %g = f32[32]{0} all-gather(%x), replica_groups=[4,4]<=[16], dimensions={0}",
            ("all-gather", 128, 4),
            96,
        ),
        (
            "  ROOT %s = f32[1]{0} reduce-scatter(%x), replica_groups=mesh['a'=2,'b'=8],"
            " device_ids=([8,2]T(1,0)) {'b'}, dimensions={0}, to_apply=%s",
            ("reduce-scatter", 32, 8),
            28,
        ),
        (
            "  ROOT %a = f32[8]{0} all-to-all(%x), replica_groups={}, dimensions={0}",
            ("all-to-all", 32, 16),
            30,
        ),
        (
            "  ROOT %p = f32[8]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}",
            ("collective-permute", 32, 2),
            32,
        ),
        (
            "  %r = f32[8]{0} all-reduce(%x), replica_groups=mesh['a'=16] {'a':(1)4}\n"
            "  ROOT %d = f32[2]{0} dynamic-slice(%r, %x), dynamic_slice_sizes={2}",
            ("reduce-scatter", 32, 4),
            24,
        ),
    ],
)
def test_collectives(line, expected, sent):
    (one,) = collective(line)
    assert one == compiled.Collective(*expected, 1)
    assert one.sent == sent


def test_a_start_and_its_done_are_one_exchange():
    line = (
        "  %s = (f32[8]{0}, f32[32]{0}) all-gather-start(%x), replica_groups=[4,4]<=[16]\n"
        "  ROOT %d = f32[32]{0} all-gather-done(%s)"
    )
    assert collective(line) == [compiled.Collective("all-gather", 128, 4, 1)]


@pytest.mark.parametrize(
    ("window", "left", "right", "output", "products"),
    [
        # 8 outputs of a window of 3, of which one falls on the padding at either end
        ("window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f", [2, 8, 4], [3, 4, 5], [2, 8, 5], 22),
        ("window={size=3 stride=2}, dim_labels=b0f_0io->b0f", [2, 9, 4], [3, 4, 5], [2, 4, 5], 12),
        # every second input is a zero that the dilation puts in
        (
            "window={size=3 pad=2_2 lhs_dilate=2}, dim_labels=b0f_0io->b0f",
            [2, 4, 4],
            [3, 4, 5],
            [2, 9, 5],
            12,
        ),
        ("dim_labels=bf_io->bf", [2, 4], [4, 5], [2, 5], 1),
    ],
)
def test_flops_of_convolutions(window, left, right, output, products):
    left, right, output = ("f32" + str(shape).replace(" ", "") for shape in (left, right, output))
    text = f"""ENTRY %main (x: {left}, w: {right}) -> {output} {{
  %x = {left} parameter(0)
  %w = {right} parameter(1)
  ROOT %c = {output} convolution(%x, %w), {window}
}}
"""
    assert compiled.count(text).flops == 2 * products * 2 * 4 * 5


def test_traffic_is_that_of_the_main_memory_and_of_slices():
    text = """\
%fused (a: f32[8,256], i: s32[]) -> f32[256] {
  %a = f32[8,256]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %d = f32[1,256]{1,0} dynamic-slice(%a, %i, %i), dynamic_slice_sizes={1,256}
}

%placed (a: f32[8,256], b: f32[1,256], i: s32[]) -> f32[8,256] {
  %a = f32[8,256]{1,0} parameter(0)
  %b = f32[1,256]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %u = f32[8,256]{1,0} dynamic-update-slice(%a, %b, %i, %i)
}

ENTRY %main (x: f32[8,256], i: s32[]) -> f32[8,256] {
  %x = f32[8,256]{1,0} parameter(0)
  %i = s32[]{:S(2)} parameter(1)
  %s = f32[1,256]{1,0:S(1)} fusion(%x, %i), kind=kLoop, calls=%fused
  %n = f32[1,256]{1,0} negate(%s)
  ROOT %r = f32[8,256]{1,0} fusion(%x, %n, %i), kind=kLoop, calls=%placed
}
"""
    row = 4 * 256
    # The slice is read; the negated row is written; it is read, and written in its place.
    assert compiled.count(text).traffic == 4 * row


def test_a_fusion_within_a_fusion_reads_what_it_slices():
    """The layers of a network lie in one array, of which a fusion takes one."""

    def traffic(inner):
        text = f"""\
%inner (a: f32[8,256], i: s32[]) -> f32[1,256] {{
  %a = f32[8,256]{{1,0}} parameter(0)
  %i = s32[] parameter(1)
{inner}
}}

%outer (i: s32[], b: f32[8,256]) -> f32[1,256] {{
  %i = s32[] parameter(0)
  %b = f32[8,256]{{1,0}} parameter(1)
  %c = f32[8,256]{{1,0}} bitcast(%b)
  %s = f32[1,256]{{1,0}} fusion(%c, %i), kind=kLoop, calls=%inner
  ROOT %n = f32[1,256]{{1,0}} negate(%s)
}}

ENTRY %main (x: f32[8,256], i: s32[]) -> f32[1,256] {{
  %x = f32[8,256]{{1,0}} parameter(0)
  %i = s32[]{{:S(2)}} parameter(1)
  ROOT %r = f32[1,256]{{1,0}} fusion(%i, %x), kind=kLoop, calls=%outer
}}
"""
        return compiled.count(text).traffic

    row = 4 * 256
    one = "  {} = f32[1,256]{{1,0}} dynamic-slice(%a, %i, %i), dynamic_slice_sizes={{1,256}}"
    # What is read, and the row that is written.
    assert traffic(one.format("ROOT %d")) == row + row
    both = [one.format("%d"), one.format("%e"), "  ROOT %f = f32[1,256]{1,0} add(%d, %e)"]
    assert traffic("\n".join(both)) == 2 * row + row
    whole = ["  %m = f32[8,256]{1,0} negate(%a)", one.format("ROOT %d").replace("%a", "%m")]
    assert traffic("\n".join(whole)) == 8 * row + row


def test_memory_that_is_only_set_aside_is_no_traffic():
    text = """\
ENTRY %main () -> f32[8,256] {
  %a = f32[8,256]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %n = f32[8,256]{1,0} negate(%a)
}
"""
    assert compiled.count(HEAD + text).traffic == 2 * 4 * 8 * 256
