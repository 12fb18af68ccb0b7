"""A laid out figure: the same places, rounded and kept, each time."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from strata.plotting import DECIMALS_OF_PLACES, STYLE, settled, styled
from strata.rgm.image_grids import draw_fields, field_bar


@pytest.fixture(autouse=True)
def _closed_figures() -> Any:
    yield
    plt.close("all")


@styled
def example(layout: str) -> Figure:
    """Two grids of unequal size with a colour bar below each, and a title."""
    figure, panels = plt.subplots(1, 2, layout=layout, figsize=(3.3, 2.0))
    figure.suptitle("a title")
    for number, panel in enumerate(panels):
        random = np.random.default_rng(number)
        image = draw_fields(panel, random.normal(size=(2 + number, 3, 5, 5)))
        field_bar(image, panel, "field (1)")
    return figure


def places(figure: Figure) -> np.ndarray:
    return np.array([axes.get_position(original=True).bounds for axes in figure.axes])


@pytest.mark.parametrize("layout", ["constrained", "compressed"])
def test_places_are_those_of_the_layout_without_the_noise(layout: str) -> None:
    laid_out = example(layout)
    with plt.rc_context(STYLE):
        laid_out.draw_without_rendering()
    expected = places(laid_out)
    found = places(settled(example(layout)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found, found.round(DECIMALS_OF_PLACES), rtol=0, atol=1e-12)
    assert (np.abs(found - places(example(layout))) > 1e-3).any(), "it was laid out at all"


@pytest.mark.parametrize("layout", ["constrained", "compressed"])
def test_drawing_does_not_move_what_is_settled(layout: str) -> None:
    figure = settled(example(layout))
    before, title = places(figure), figure.texts[0].get_position()
    figure.set_dpi(200)
    figure.canvas.draw()
    np.testing.assert_array_equal(places(figure), before)
    assert figure.texts[0].get_position() == title


def test_places_are_equal_in_every_one_of_many_figures() -> None:
    first = places(settled(example("compressed")))
    for _ in range(4):
        np.testing.assert_array_equal(places(settled(example("compressed"))), first)
