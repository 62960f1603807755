"""The pictures of a flow: what the reconstruction shows."""

import numpy as np
import pytest

from experiments.methods import flow


@pytest.mark.parametrize(("size", "factor"), [(2e-7, 5e6), (0.03, 30.0), (0.0, 1.0)])
def test_errors_are_enlarged_until_they_are_seen(monkeypatch, size, factor):
    shown = {}
    monkeypatch.setattr(flow, "sheet", lambda *args: shown.update(args=args))
    real = np.full((8, 4, 4, 1), 0.25)
    again = real.copy()
    again[3, 1, 2] += size
    flow._reconstruction(real, again)
    images, columns, _, rows = shown["args"]
    np.testing.assert_array_equal(images[:8], real)
    np.testing.assert_array_equal(images[8:16], again)
    np.testing.assert_allclose(images[16:], np.abs(again - real) * factor, rtol=1e-6)
    assert columns == 8
    assert float(rows[2].rpartition(" ")[2]) == factor
    assert size == 0 or 0.6 < images[16:].max() < 1.1


def test_errors_that_are_not_finite_leave_the_others_visible():
    real = np.full((8, 4, 4, 1), 0.25)
    again = real.copy()
    again[0, 0, 0], again[1, 1, 1] = np.inf, 0.26
    assert np.isfinite(flow._reconstruction(real, again)).all()
