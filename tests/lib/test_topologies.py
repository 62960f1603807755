import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from experiments.lib import topologies
from experiments.lib.errors import UserError

needs_libtpu = pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"), reason="pip install -e '.[tpu]'"
)


@pytest.mark.parametrize(
    "name", ["", "v5e", "v5e:", "v5e:4x", "v5e:0x4", "v5e-16", "v99:2x2", "v5e:4X4", "v5e:-1x2"]
)
def test_names_that_are_none(name):
    with pytest.raises(UserError, match=r"expected KIND:SHAPE, such as v5e:16x16"):
        topologies.describe(name)


@pytest.mark.parametrize("name", ["v5e:4", "v5e:2x2x2", "v5p:4x4", "v5e:16x32"])
def test_slices_that_are_not_built(name):
    with pytest.raises(UserError, match=r"expected [23] numbers with a product of at most \d+"):
        topologies.describe(name)


def test_without_libtpu_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '.\[tpu\]'"):
        topologies.describe("v5e:4x4")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (
            "ABORTED: Internal error when accessing libtpu multi-process lockfile.",
            "another process",
        ),
        ("INVALID_ARGUMENT: no such thing\nand more", "--topology v5e:3x3: INVALID_ARGUMENT: no "),
    ],
)
def test_faults_of_libtpu_become_one_line(monkeypatch, raised, expected):
    def fail(*args, **options):
        raise jax.errors.JaxRuntimeError(raised)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(topologies.topologies, "get_topology_desc", fail)
    for name in ("TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        monkeypatch.setenv(name, "")  # what it sets is undone
    with pytest.raises(UserError, match=expected) as caught:
        topologies.describe("v5e:3x3")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [NotImplementedError("no rule\nfor it"), jax.errors.JaxRuntimeError("no memory\nleft")]
)
def test_what_does_not_compile_becomes_one_line(error):
    def f(x):
        raise error

    with pytest.raises(UserError, match=r"does not compile for this slice: no (rule|memory)$"):
        topologies.compiled(jax.jit(f), jnp.zeros(2))


def test_a_program_is_compiled_and_timed():
    program, seconds = topologies.compiled(
        jax.jit(lambda x: x + 1), jax.ShapeDtypeStruct((2,), "f")
    )
    assert program(jnp.zeros(2, "f")).tolist() == [1, 1]
    assert seconds > 0


# In a process of its own: libtpu is loaded once, and stays.
PROGRAM = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from experiments.lib import compiled, topologies
from experiments.lib.errors import UserError

found = {}
for name in sys.argv[1:]:
    chip, devices = topologies.describe(name)
    found[name] = len(devices), len({d.id for d in devices}), devices[0].platform
mesh = Mesh(np.array(devices), ("data",))
split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
f = jax.jit(lambda w, x: jax.grad(lambda w: jnp.mean((x @ w) ** 2))(w),
            in_shardings=(whole, split), out_shardings=whole)
form = jax.ShapeDtypeStruct
program, _ = topologies.compiled(f, form((128, 256), "float32"), form((4096, 128), "float32"))
found["counts"] = compiled.count(program.as_text())
try:
    topologies.compiled(jax.jit(lambda x: x + 1, in_shardings=split), form((2**36,), "float32"))
except UserError as error:
    found["memory"] = str(error)
try:
    topologies.compiled(jax.jit(lambda x: jnp.linalg.eig(x), in_shardings=whole),
                        form((8, 8), "float32"))
except UserError as error:
    found["operation"] = str(error)
print(json.dumps(found))
"""


@needs_libtpu
def test_a_slice_is_described_and_compiled_for():
    names = {"v4:2x2x1": 4, "v5e:1x1": 1, "v5p:4x4x8": 128, "v6e:2x4": 8, "v5e:4x4": 16}
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "false"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: found[name] for name in names} == {n: [k, k, "tpu"] for n, k in names.items()}
    flops, _, collectives, unknown = found["counts"]
    products = 2 * 2 * 4096 // 16 * 128 * 256
    assert products <= flops <= 1.1 * products
    assert unknown == 0
    assert [(kind, size, group) for kind, size, group, _ in collectives] == [
        ("all-reduce", 4 * 128 * 256, 16)
    ]
    assert "does not compile for this slice: RESOURCE_EXHAUSTED" in found["memory"]
    assert "eig" in found["operation"]
