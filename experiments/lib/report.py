"""What a run found: summary.json, and the lines printed at its end."""

import importlib
import importlib.metadata
import math
import pathlib
import platform
from collections.abc import Mapping

import jax

_PACKAGES = (
    "jaxgen",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "scikit-learn",  # its digits and documentation strings are data
)


def summary(
    about: Mapping,
    steps: int,
    metrics: Mapping[str, float],
    by_seed: Mapping[str, list[float]],
    seconds: float,
    pace: float | None,
) -> dict:
    """The content of summary.json.

    Args:
      about: what config.json holds.
      steps: number of steps done.
      metrics: the final numbers; those that are not finite become null.
      by_seed: of several seeds, the numbers of each.
      seconds: time trained.
      pace: median seconds between two steps, or None.
    """
    versions = {package: _version(package) for package in _PACKAGES}
    of_seeds = {n: [_kept(value) for value in values] for n, values in by_seed.items()}
    return {
        **about,
        "metrics": {n: _kept(value) for n, value in metrics.items()},
        **({"by_seed": of_seeds} if by_seed else {}),
        "steps": steps,
        "seconds": round(seconds, 1),
        "step_seconds": pace,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {"python": platform.python_version(), **versions},
    }


def lines(
    folder: pathlib.Path, summary: Mapping, how: str, meanings: Mapping[str, str]
) -> list[str]:
    """The final numbers, each with its meaning where that is known.

    Args:
      folder: of the run.
      summary: what summary.json holds.
      how: what became of the run, such as "finished".
      meanings: see `Method`.
    """
    numbers = {name: _shown(value) for name, value in summary["metrics"].items()}
    wide, high = (max(map(len, texts), default=0) for texts in (numbers, numbers.values()))
    rows = [
        f"  {name:<{wide}}  {number:<{high}}  {meaning(name, meanings)}".rstrip()
        for name, number in numbers.items()
    ]
    pictures = ", pictures in pictures/" if (folder / "pictures").exists() else ""
    return [
        f"{summary['experiment']}: {how}, {summary['steps']} steps in {summary['seconds']} s"
        f" on {summary['device']}",
        *rows,
        *_by_seed(summary.get("by_seed", {})),
        f"  in {folder}{pictures}",
    ]


def _by_seed(numbers: Mapping[str, list]) -> list[str]:
    wide = max(map(len, numbers), default=0)
    rows = [f"  {n:<{wide}}  {' '.join(map(_shown, values))}" for n, values in numbers.items()]
    return ["  of every seed:", *rows] if rows else []


def _kept(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _shown(value: float | None) -> str:
    if value is None:
        return "nan"
    return str(int(value)) if value == int(value) else f"{value:.5g}"


def meaning(name: str, meanings: Mapping[str, str]) -> str:
    """One line on a number, or nothing where no meaning is known."""
    own = name.rpartition("/")[2]
    if own in meanings:
        return meanings[own]
    if own.endswith("_std") and own.removesuffix("_std") in meanings:
        return "standard deviation over the seeds"
    if own.endswith("_picked") and own.removesuffix("_picked") in meanings:
        return "of the seed that is picked without looking at this number"
    if own.endswith("_of_real") and own.removesuffix("_of_real") in meanings:
        return "the same number of real images: about the best that samples reach"
    return ""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a checkout that was not installed
        return getattr(importlib.import_module(package), "__version__", None)
