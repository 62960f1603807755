"""The final numbers: what is kept of them, and what is printed."""

import importlib.metadata
import math
import sys
import types

from experiments.lib import report

ABOUT = {"experiment": "toy", "config": {"rate": 0.1}}
MEANINGS = {"nll": "nats per test example", "modes": "modes that samples reach"}


def test_each_number_has_its_meaning_beside_it(tmp_path):
    numbers = {"nll": 2.5, "large/nll": 0.25, "nll_std": 0.1, "modes_of_real": 8.0, "other": 1.0}
    summary = report.summary(ABOUT, 60, numbers, {}, 1.26, None)
    (tmp_path / "pictures").mkdir()
    assert report.lines(tmp_path, summary, "finished", MEANINGS) == [
        "toy: finished, 60 steps in 1.3 s on 8 x cpu",
        "  nll            2.5   nats per test example",
        "  large/nll      0.25  nats per test example",
        "  nll_std        0.1   standard deviation over the seeds",
        "  modes_of_real  8     the same number of real images: about the best that samples reach",
        "  other          1",
        f"  in {tmp_path}, pictures in pictures/",
    ]


def test_the_numbers_of_every_seed_are_kept_and_printed(tmp_path):
    numbers = {"nll": 2.0, "nll_picked": 1.0}
    summary = report.summary(ABOUT, 60, numbers, {"nll": [3.0, 1.0, math.nan]}, 1.26, None)
    assert summary["by_seed"] == {"nll": [3.0, 1.0, None]}
    assert report.lines(tmp_path, summary, "finished", MEANINGS)[1:] == [
        "  nll         2  nats per test example",
        "  nll_picked  1  of the seed that is picked without looking at this number",
        "  of every seed:",
        "  nll  3 1 nan",
        f"  in {tmp_path}",
    ]


def test_a_whole_number_keeps_its_digits(tmp_path):
    summary = report.summary(ABOUT, 1, {"digest": 1181413.0}, {}, 0, None)
    assert report.lines(tmp_path, summary, "finished", {})[1] == "  digest  1181413"


def test_what_is_not_finite_is_null_and_printed_as_nan(tmp_path):
    summary = report.summary(ABOUT, 1, {"nll": math.nan, "kl": math.inf}, {}, 0, None)
    assert summary["metrics"] == {"nll": None, "kl": None}
    assert report.lines(tmp_path, summary, "finished", {})[1:3] == ["  nll  nan", "  kl   nan"]


def test_a_checkout_that_is_not_installed_has_a_version_too(monkeypatch):
    version = importlib.metadata.version

    def of_others(package):
        if package == "jaxgen":
            raise importlib.metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(importlib.metadata, "version", of_others)
    monkeypatch.setitem(sys.modules, "jaxgen", types.SimpleNamespace(__version__="9.8"))
    versions = report.summary(ABOUT, 1, {}, {}, 0, None)["versions"]
    assert versions["jaxgen"] == "9.8"
    assert versions["numpy"] == version("numpy")
