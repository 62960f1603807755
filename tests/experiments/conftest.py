"""What every drawing of an experiment must have."""

import pytest
from matplotlib.ticker import LogFormatter, ScalarFormatter

from experiments.lib.pictures import figure


@pytest.fixture
def complete_figure():
    """`figure`, which fails where a title, the label of an axis or a legend is missing."""
    return _complete_figure


def _complete_figure(draw, *size, **named_size):
    def checked(drawing):
        draw(drawing)
        axes = [axis for axis in drawing.axes if axis.axison]
        assert drawing.get_suptitle() or all(axis.get_title() for axis in axes), "no title"
        for axis in axes:
            for name, side, shared in (
                ("x", axis.xaxis, drawing.get_supxlabel()),
                ("y", axis.yaxis, drawing.get_supylabel()),
            ):
                numbers = isinstance(side.get_major_formatter(), ScalarFormatter | LogFormatter)
                bare = numbers and len(side.get_ticklocs()) and side.get_visible()
                assert not bare or shared or side.get_label_text(), f"{name} has no label"
            assert axis.get_legend() is None, "a legend that may hide points"
        several = any(len(axis.get_legend_handles_labels()[1]) > 1 for axis in axes)
        assert not several or drawing.legends, "no legend"

    return figure(checked, *size, **named_size)
