"""What the benchmarks share: timing in turn, the machine's own speed, rows and tables.

A time says little on a machine that others use too. So the functions that are compared run in
turn (A, B, C, A, B, C, ...) in one process, the ratio is taken inside each round, where all of
them met the same machine, and what is reported is the median of these ratios.
"""

import concurrent.futures
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.lib import devices


def in_turn(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Times functions one after the other, over and over.

    Args:
      functions: name -> function of no arguments, which returns when its work is done.
      rounds: how often each is timed, after two calls that are not (the first compiles).

    Returns:
      name -> seconds in each round.
    """
    for function in [*functions.values()] * 2:
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return times


def seconds(function: Callable[[], Any]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ratio(times: list[float], reference: list[float]) -> dict[str, float]:
    """Median over the rounds of times / reference, and the quartiles, which show the noise."""
    ratios = [a / b for a, b in zip(times, reference, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"ratio": middle, "ratio_low": low, "ratio_high": high}


def matmul(size: int = 2048, dtype=jnp.float32) -> tuple[Callable[[], Any], float]:
    """Large matrix products of JAX and their FLOPs: the speed that this machine can reach.

    One on a CPU; elsewhere ten in a queue, for the start of one takes a part of its time.
    """
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)
    count = 1 if jax.default_backend() == "cpu" else 10
    return lambda: jax.block_until_ready([product(a, a) for _ in range(count)]), (
        count * 2.0 * size**3
    )


def in_own_process(function: Callable, *arguments):
    """`function(*arguments)`, run by a fresh interpreter, whose memory nothing else has touched."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def training(step: Callable, state, batch, steps: int = 1) -> Callable[[], Any]:
    """A function that trains for some steps, one after the other, and waits for each.

    Args:
      step: (state, batch) -> (state, metrics); compiled with a donated state, as the loop does.
      state: before the first step; consumed.
      batch: of every step.
      steps: of one call.
    """
    compiled = jax.jit(step, donate_argnums=0)

    def run():
        nonlocal state
        for _ in range(steps):
            state, _ = jax.block_until_ready(compiled(state, batch))

    return run


def temporary_mib(step: Callable, state, batch) -> float:
    """XLA's own plan of the temporary memory of a step, as `training` compiles it."""
    plan: Any = jax.jit(step, donate_argnums=0).lower(state, batch).compile().memory_analysis()
    return plan.temp_size_in_bytes / 2**20


IMAGE_WAYS = {
    "torch": (False, False),
    "torch channels_last": (True, False),
    "torch compile": (True, True),
}


def torch_ways(
    case: str, make: Callable, ways: Mapping = IMAGE_WAYS, *, compiles: bool = True, **labels
) -> dict:
    """Every way of PyTorch that works here; a row for each that does not.

    Args:
      case: of that row.
      make: (*how) -> function of no arguments that trains for one step. It imports the peer,
        because PyTorch is optional.
      ways: name -> how; by default (channels_last, compiled) of networks of images.
      compiles: whether torch.compile can be expected to work.
      **labels: of that row.
    """
    working = {}
    for way, how in ways.items():
        if "compile" in way and not compiles:
            continue
        try:
            run = make(*how)
            run()
            working[way] = run
        except Exception as error:
            row(case, **labels, name=way, failed=f"{type(error).__name__}: {error}"[:200])
    return working


def steps(
    case: str,
    runs: Mapping[str, Callable],
    rounds: int,
    work: float | Mapping[str, float],
    *,
    peak: tuple[Callable[[], Any], float] | None = None,
    items: Mapping[str, float] | None = None,
    extra: Mapping[str, Mapping[str, float]] | None = None,
    **labels,
) -> list:
    """One row for each way to take a step: seconds, ratio to the first way, FLOP/s.

    Args:
      case: of the rows.
      runs: name -> function of no arguments that takes the step.
      rounds: how often each is timed.
      work: FLOPs that the step cannot do without; or name -> FLOPs, without those of no product.
      peak: a product and its FLOPs, whose speed is the machine's; `matmul()` if None.
      items: what a step handles -> how many, such as tokens: its speed is a column.
      extra: column -> name -> a number measured elsewhere.
      **labels: of the rows.
    """
    product, product_flops = peak or matmul()
    times = in_turn({**runs, "matmul": product}, rounds)
    speed = [product_flops / t for t in times.pop("matmul")]
    reference = next(iter(times.values()))
    rows = []
    for name, t in times.items():
        middle = statistics.median(t)
        columns = {"seconds": middle, **ratio(t, reference)}
        columns |= {f"{what}_per_second": n / middle for what, n in (items or {}).items()}
        flops = work.get(name) if isinstance(work, Mapping) else work
        if flops is not None:
            used = (flops / s / v for s, v in zip(t, speed, strict=True))
            columns |= {"utilization": statistics.median(used), "gflops": flops / middle / 1e9}
        columns["matmul_gflops"] = statistics.median(speed) / 1e9
        columns |= {column: values[name] for column, values in (extra or {}).items()}
        rows.append(row(case, **labels, name=name, **columns))
    return rows


def seeds(case: str, step: Callable, init: Callable, batch, count: int, rounds: int, **labels):
    """One row for each way to train many models: vmap and lax.map, against one after the other.

    Args:
      case: of the rows.
      step: (state, batch) -> (state, metrics).
      init: key -> state.
      batch: of every step and every model.
      count: number of models.
      rounds: how often each way is timed.
      **labels: of the rows.
    """
    ways = {
        "vmap": jax.vmap(step, in_axes=(0, None)),
        "lax.map": lambda states, batch: jax.lax.map(lambda state: step(state, batch), states),
    }
    key = jax.random.key(1)
    one = jax.jit(init)(key)
    temporary = {"one by one": temporary_mib(step, one, batch)}
    runs = {"one by one": training(step, one, batch, count)}
    for way, together in ways.items():
        states = jax.jit(jax.vmap(init))(jax.random.split(key, count))
        temporary[way] = temporary_mib(together, states, batch)
        runs[way] = training(together, states, batch)
    times = in_turn(runs, rounds)
    return [
        row(
            case,
            **labels,
            name=way,
            seconds=statistics.median(t) / count,
            **ratio(t, times["one by one"]),
            temporary_mib=temporary[way],
        )
        for way, t in times.items()
    ]


def growth(function: Callable[[], Any]) -> float | None:
    """MiB by which this process grows at the peak of one call; None where Linux does not tell."""
    status, reset = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")
    if not reset.exists() or jax.default_backend() != "cpu":
        return None

    def mib(field):
        lines = (line for line in status.read_text().splitlines() if line.startswith(field))
        return int(next(lines).split()[1]) / 2**10

    reset.write_text("5")  # forgets the peak so far, which may be the compiler's
    before = mib("VmRSS")
    function()
    return mib("VmHWM") - before


def row(case: str, **values) -> dict[str, Any]:
    """Prints one JSON line, and returns it as a dict."""
    values = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"case": case, **values}), flush=True)
    return {"case": case, **values}


def environment() -> dict[str, Any]:
    """Prints and returns the row that says what ran where."""
    packages = ("jax", "jaxlib", "flax", "optax", "torch", "transformers")
    versions = {name: _version(name) for name in packages}
    return row(
        "environment",
        commit=_git("rev-parse", "--short", "HEAD") or None,
        modified=bool(_git("status", "--porcelain")),
        python=platform.python_version(),
        **versions,
        device=jax.devices()[0].device_kind,
        devices=jax.device_count(),
        processor=_processor(),
        cores=cores(),
        load=os.getloadavg()[0],
    )


def cores() -> int:
    """Cores that this process may use, which is the number of threads that JAX starts."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def table(rows: list[dict[str, Any]]) -> None:
    """Prints the rows, one block per case."""
    for case in dict.fromkeys(row["case"] for row in rows):
        block = [
            {k: v for k, v in row.items() if k != "case"} for row in rows if row["case"] == case
        ]
        columns = list(dict.fromkeys(key for row in block for key in row))
        cells = [columns, *([_cell(row.get(key)) for key in columns] for row in block)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        print(f"\n{case}")
        for line in cells:
            print("  " + "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


def run(cases: Mapping[str, Callable[[], list[dict[str, Any]]]], names: list[str]) -> None:
    """Runs the named cases, or all, and prints their rows as a table; compiles everything anew."""
    unknown = set(names) - set(cases)
    if unknown:
        sys.exit(f"error: {', '.join(sorted(unknown))}: expected some of {', '.join(cases)}")
    jax.config.update("jax_enable_compilation_cache", False)
    devices.keep_memory()  # as experiments do
    rows = [environment()]
    for name in names or cases:
        rows += cases[name]()
    table(rows)


def _cell(value) -> str:
    return "" if value is None else str(value)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    folder = pathlib.Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
