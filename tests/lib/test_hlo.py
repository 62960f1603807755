"""Small HLO texts, as the compilers of CPU, GPU and TPU write them."""

import pytest

from experiments.lib import hlo

COUNTED = """\
%cond.1 (p.1: (s32[], f32[4])) -> pred[] {
  %bound = s32[]{:T(128)} constant(5)
  %p.1 = (s32[]{:T(128)}, f32[4]{0:T(128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %bound), direction=LT, metadata={op_name="a(b)"}
}

%inner_fused (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  ROOT %n = f32[4]{0} negate(%a)
}

%inner_body (q: (s32[], f32[4])) -> (s32[], f32[4]) {
  %q = (s32[], f32[4]{0}) parameter(0)
  ROOT %f = f32[4]{0} fusion(%q), kind=kLoop, calls=%inner_fused
}

%inner_cond (r: (s32[], f32[4])) -> pred[] {
  %r = (s32[], f32[4]{0}) parameter(0)
  ROOT %w = pred[] fusion(%r), kind=kLoop, calls=%elsewhere
}

%body.1 (p.2: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p.2 = (s32[]{:T(128)}, /*index=1*/f32[4]{0:T(128)S(1)}) parameter(0)
  ROOT %while.2 = (s32[], f32[4]{0}) while(%p.2), condition=%inner_cond, body=%inner_body, LENGTH
}

%never (z: f32[]) -> f32[] {
  ROOT %z = f32[] parameter(0)
}

ENTRY %main.1 (x: f32[4]) -> (s32[], f32[4]) {
  %x = f32[4]{0:T(128)} parameter(0)
  %t = (s32[], f32[4]{0}) tuple(%x), metadata={op_name="jit(f)/tuple(%ghost)"}
  ROOT %while.1 = (s32[], f32[4]{0}) while(%t), condition=%cond.1, body=%body.1
}
"""
ANNOTATED = 'backend_config={"known_trip_count":{"n":"3"},"known_init_step":{"init":"0"}}'


def test_instructions_are_read_whatever_their_types_and_attributes_hold():
    module = hlo.parse(COUNTED)
    assert list(module)[-1] == "ENTRY"
    loop = module["body.1"]["while.2"]
    assert (loop.opcode, loop.operands, loop.type) == ("while", ("p.2",), "(s32[], f32[4]{0})")
    assert module["ENTRY"]["t"].operands == ("x",)
    assert module["cond.1"]["bound"].operands == ()


def test_loops_multiply_what_they_hold():
    found = hlo.runs(hlo.parse(COUNTED.replace("LENGTH", ANNOTATED)))
    assert found.times["body.1"] == 5
    assert found.times["inner_body"] == found.times["inner_fused"] == 15
    assert "never" not in found.times
    assert found.fused == {"inner_fused", "elsewhere"}
    assert found.unknown_loops == 0


def test_a_loop_of_unknown_length_counts_once_and_is_told():
    found = hlo.runs(hlo.parse(COUNTED.replace(", LENGTH", "")))
    assert found.times["inner_body"] == 5
    assert found.unknown_loops == 1


def test_an_async_computation_runs_once():
    text = """\
%wrapped (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %r = f32[1]{0} reduce-scatter(%a), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%sum
}

ENTRY %main (x: f32[8]) -> f32[1] {
  %x = f32[8]{0} parameter(0)
  %s = ((f32[8]{0}), f32[1]{0}, u32[]) async-start(%x), calls=%wrapped
  %u = ((f32[8]{0}), f32[1]{0}, u32[]) async-update(%s), calls=%wrapped
  ROOT %d = f32[1]{0} async-done(%u), calls=%wrapped
}
"""
    found = hlo.runs(hlo.parse(text))
    assert found.times["wrapped"] == 1
    assert "wrapped" in found.fused


def test_branches_and_calls_are_followed():
    text = """\
%one (a: f32[]) -> f32[] {
  ROOT %a = f32[] parameter(0)
}

%two (b: f32[]) -> f32[] {
  ROOT %b = f32[] parameter(0)
}

ENTRY %main (x: f32[], i: s32[]) -> f32[] {
  %x = f32[] parameter(0)
  %i = s32[] parameter(1)
  %c = f32[] conditional(%i, %x, %x), branch_computations={%one, %two}
  %r = f32[] reduce(%x, %x), dimensions={0}, to_apply=%two
  ROOT %d = f32[] call(%c), to_apply=%one
}
"""
    assert hlo.runs(hlo.parse(text)).times == {"ENTRY": 1, "one": 2, "two": 1}


@pytest.mark.parametrize(
    ("text", "whole", "main"),
    [
        ("f32[2,3]{1,0}", 24, 24),
        ("f32[2,3]{1,0:T(8,128)S(1)}", 24, 0),
        ("(bf16[4]{0:S(1)}, pred[3]{0}, s32[])", 15, 7),
        ("f8e4m3fn[10]{0}", 10, 10),
        ("s4[6]{0}", 3, 3),
        ("token[]", 0, 0),
        ("f32[]{:T(128)}", 4, 4),
    ],
)
def test_sizes_of_types(text, whole, main):
    assert hlo.size(text) == whole
    assert hlo.size(text, main_memory=True) == main
