"""Every test sees eight CPU devices, strict shapes, and warnings as errors."""

import ctypes
import gc
import importlib.util
import os
import pathlib
import tempfile

import jaxlib.version

# Before jax is imported: the platform and the number of devices are read once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
_FLAGS = [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
# Tests spend their time compiling. Without the new emitters that takes half the time and memory;
# later releases refuse the flag.
if jaxlib.version.__version_info__ < (0, 11):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
_FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")
os.environ["XLA_FLAGS"] = " ".join(_FLAGS)
_CACHE = pathlib.Path(tempfile.gettempdir()) / f"jaxgen-test-compilation-cache-{os.getuid()}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# Let LLVM do less as well, here and in the programs that tests start.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")

# Programs that tests start find experiments and benchmarks in the checkout, from any folder.
_ROOT = str(pathlib.Path(__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join([_ROOT, os.environ.get("PYTHONPATH", "")]).rstrip(
    os.pathsep
)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

_ARITHMETIC = os.environ.get("ARITHMETIC", "f32")
if _ARITHMETIC != "f32":
    _spec = importlib.util.spec_from_file_location("arithmetic", f"{_ROOT}/tests/arithmetic.py")
    assert _spec is not None
    assert _spec.loader is not None
    _spec.loader.exec_module(_module := importlib.util.module_from_spec(_spec))
    _module.round_operands(_ARITHMETIC)

_ENOUGH = 1.2e9
# What is freed stays with glibc until this is called.
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)


def pytest_runtest_logfinish():
    """Gives back what was compiled, a megabyte per program, once a test leaves too much of it."""
    if _resident() > _ENOUGH:
        jax.clear_caches()
        gc.collect()
        if _TRIM:
            _TRIM(0)


def _resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    try:
        pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def pytest_collection_modifyitems(config, items):
    """Leaves out tests in double precision or of exact products: they would repeat the f32 run."""
    if _ARITHMETIC == "f32":
        return
    same = [item for item in items if {"x64", "exact_products"} & set(item.fixturenames)]
    config.hook.pytest_deselected(items=same)
    items[:] = [item for item in items if item not in same]


@pytest.fixture
def real_data():
    """The folder of prepared data sets, where the machine has it."""
    folder = pathlib.Path(os.environ.get("JAXGEN_DATA", pathlib.Path(_ROOT).parent / "shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no prepared data sets in {folder}; JAXGEN_DATA names their folder")
    return folder


@pytest.fixture
def arithmetic():
    """How products round: "f32", or "bf16" as on a TPU, or "tf32" as on a GPU (arithmetic.py)."""
    return _ARITHMETIC


@pytest.fixture
def exact_products():
    """Products in full f32 for one test, which holds an equation and not a product's rounding."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture
def eight_devices():
    """For a test that splits a batch; a GPU machine may have fewer."""
    if jax.device_count() < 8:
        pytest.skip(f"{jax.device_count()} devices; this test splits a batch over eight")


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def works_everywhere():
    """works_everywhere(function, draw): a pure function under every transformation and dtype.

    `draw(rng) -> arguments`, a tuple of numpy arrays (or pytrees of them) from a numpy generator;
    a static argument is bound beforehand. `grad=False` leaves the gradient out.
    """
    return _works_everywhere


def _works_everywhere(function, draw, *, grad=True, tolerance=1e-4):
    def run(*args):
        value = function(*args)
        return (value, _gradient(function, args)) if grad else value

    draws = [draw(np.random.default_rng(seed)) for seed in range(8)]
    examples = [_floats(args, jnp.float32) for args in draws]
    batch = _stack(examples)
    jitted = jax.jit(run)
    expected = _stack([jitted(*args) for args in examples])
    _assert_close(_first(expected)[0] if grad else _first(expected), function(*examples[0]))
    _assert_finite(expected)
    _assert_close(jax.pmap(run)(*batch), expected, tolerance)

    # vmap within shard_map: two examples on each of four devices.
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
    spec = jax.P("data")
    sharded = jax.shard_map(jax.vmap(run), mesh=mesh, in_specs=spec, out_specs=spec)
    _assert_close(jax.jit(sharded)(*batch), expected, tolerance)

    with jax.enable_x64(True):
        wide = jitted(*_floats(draws[0], jnp.float64))
        _assert_dtypes(wide, jnp.float64)
    _assert_close(_first(expected), wide, tolerance)

    # Half precision: rounded at the ends, computed in f32 between them.
    half = _floats(draws[0], jnp.bfloat16)
    narrow = jitted(*half)
    _assert_dtypes(narrow, jnp.bfloat16, jnp.float32)
    _assert_close(narrow, jitted(*_floats(half, jnp.float32)), max(tolerance, 1e-2))


def _is_float(x):
    return jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)


def _floats(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype) if _is_float(x) else jnp.asarray(x), tree)


def _stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _first(tree):
    return jax.tree.map(lambda x: x[0], tree)


def _gradient(function, args):
    """Of a sum over all floats that come out, to all floats that go in."""
    leaves, treedef = jax.tree.flatten(args)
    places = [i for i, leaf in enumerate(leaves) if _is_float(leaf)]

    def total(floats):
        filled = list(leaves)
        for place, leaf in zip(places, floats, strict=True):
            filled[place] = leaf
        out = jax.tree.leaves(function(*treedef.unflatten(filled)))
        # Unequal weights: the plain sum of a softmax has no gradient.
        return sum(
            jnp.sum(x * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape))
            for x in out
            if _is_float(x)
        )

    return jax.grad(total)([leaves[i] for i in places])


def _assert_close(actual, expected, tolerance=1e-4):
    def close(a, e):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, e = jax.random.key_data(a), jax.random.key_data(e)
        a, e = np.asarray(a, np.float64), np.asarray(e, np.float64)
        scale = max(1.0, np.abs(e[np.isfinite(e)]).max(initial=0.0))
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance * scale)

    jax.tree.map(close, actual, expected)


def _assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert not _is_float(leaf) or np.isfinite(np.asarray(leaf, np.float64)).all()


def _assert_dtypes(tree, *allowed):
    found = {x.dtype for x in jax.tree.leaves(tree) if _is_float(x)}
    assert found <= {jnp.dtype(dtype) for dtype in allowed}, found


@pytest.fixture
def shows_nan():
    """shows_nan(functions, draw): a NaN in an argument is in every function's value and gradient.

    `functions` is {name: pure function} of one draw of arrays, as in `works_everywhere`. Arguments
    that a function has no gradient to are left out. `linear` names functions whose gradient does
    not depend on their arguments.
    """
    return _shows_nan


def _shows_nan(functions, draw, linear=()):
    @jax.jit
    def run(*args):
        return {name: (f(*args), _gradient(f, args)) for name, f in functions.items()}

    def has_nan(tree):
        return any(np.isnan(np.float32(x)).any() for x in jax.tree.leaves(tree) if _is_float(x))

    leaves, treedef = jax.tree.flatten(_floats(draw(np.random.default_rng(0)), jnp.float32))
    places = [place for place, leaf in enumerate(leaves) if _is_float(leaf)]
    clean = run(*treedef.unflatten(leaves))
    for number, place in enumerate(places):
        leaf = leaves[place]
        spot = jnp.unravel_index(min(1, leaf.size - 1), leaf.shape)
        bad = [*leaves[:place], leaf.at[spot].set(jnp.nan), *leaves[place + 1 :]]
        for name, (value, gradient) in run(*treedef.unflatten(bad)).items():
            slopes = clean[name][1]
            if not np.any(slopes[number]) and any(np.any(slope) for slope in slopes):
                continue
            assert has_nan(value), f"value of {name}, argument {place}"
            assert name in linear or has_nan(gradient), f"gradient of {name}, argument {place}"


@pytest.fixture
def counts_integers():
    """counts_integers(functions, draw): integers and booleans give what the equal floats give."""
    return _counts_integers


def _counts_integers(functions, draw):
    @jax.jit
    def run(*args):
        return {name: function(*args) for name, function in functions.items()}

    def cast(change):
        # Numbers are settings, such as a temperature.
        return jax.tree.map(lambda x: change(x) if np.ndim(x) and _is_float(x) else x, args)

    args = draw(np.random.default_rng(0))
    for whole in (lambda x: np.rint(3 * x).astype(np.int8), lambda x: np.asarray(x) > 0.2):
        actual = run(*cast(whole))
        expected = run(*cast(lambda x, whole=whole: jnp.asarray(whole(x), jnp.float32)))
        for name in functions:
            for a, e in zip(*(jax.tree.leaves(x[name]) for x in (actual, expected)), strict=True):
                assert a.dtype == e.dtype, name
                if _is_float(e):
                    np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-6, err_msg=name)
