"""The figure of mutual information: distances, the noise level, the scales, bad input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from strata.artifacts import write_h5
from strata.neural_rg.plot_information import (
    largest_by_distance,
    mutual_information,
    pair_distances,
)
from strata.neural_rg.target_settings import IsingSettings

NewRun = Callable[..., Any]
UNITS = {
    "physical": "nats", "latent": "nats", "noise_level": "nats", "coordinates": "sites",
    "latent_scales": "1",
}  # fmt: skip


def measured(length: int, d: int = 2, *, scales: bool = True) -> dict[str, np.ndarray]:
    coordinates = np.indices((length,) * d).reshape(d, -1).T
    n = len(coordinates)
    physical = np.where(np.eye(n) > 0, np.nan, 0.4)
    arrays = {
        "physical": physical,
        "latent": physical * np.add.outer(np.arange(n), np.arange(n)) / 1000,
        "noise_level": np.array(0.005),
        "coordinates": coordinates,
    }
    if scales:
        arrays["latent_scales"] = np.arange(n) % 2
    return arrays


def test_distances_go_the_shortest_way_round_a_periodic_lattice() -> None:
    coordinates = np.array([[0, 0], [0, 3], [3, 3], [2, 0]])
    periodic = pair_distances(coordinates, IsingSettings(L=4))
    np.testing.assert_allclose(periodic[0], [0, 1, np.sqrt(2), 2])
    open_ = pair_distances(coordinates, IsingSettings(L=4, boundary="open"))
    np.testing.assert_allclose(open_[0], [0, 3, np.sqrt(18), 2])


def test_the_largest_value_of_each_distance_is_drawn() -> None:
    distance, largest = largest_by_distance(
        np.array([2.0, 1.0, 2.0, 1.0]), np.array([0.1, 0.3, 0.2, -0.1])
    )
    np.testing.assert_array_equal(distance, [1.0, 2.0])
    np.testing.assert_array_equal(largest, [0.3, 0.2])


@pytest.mark.parametrize(
    ("target", "scales"),
    [
        (IsingSettings(L=4), True),
        (IsingSettings(L=6), False),
        (IsingSettings(L=8, d=1, T=1.0), True),
    ],
    ids=["square", "no scales", "line"],
)
def test_panels_say_what_they_show(target: IsingSettings, scales: bool) -> None:
    arrays = measured(target.L, target.d, scales=scales)
    figure = mutual_information(arrays, target, target.caption)
    figure.canvas.draw()
    axes = figure.get_axes()
    titles = [axis.get_title(loc="left") for axis in axes]
    assert {"(a) physical", "(b) latent", "(c)"} <= set(titles)
    by_title = dict(zip(titles, axes, strict=True))
    legend = [text.get_text() for text in by_title["(c)"].get_legend().get_texts()]
    assert legend == ["physical", "latent", "independent: below 0.0050"]
    if scales:
        image = by_title["(b) latent"].images[0].get_array()
        order = np.argsort(-arrays["latent_scales"], kind="stable")
        np.testing.assert_array_equal(image, arrays["latent"][order][:, order])
    labels = [tick.get_text() for tick in by_title["(b) latent"].get_yticklabels()]
    assert labels == (["1", "0"] if scales else [])
    assert "nats" in by_title["(c)"].get_ylabel()
    plt.close(figure)


def test_stage_draws_the_file_and_names_one_of_another_kind(
    new_run: NewRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()
    information = run.path("information")
    write_h5(information, measured(4), units=UNITS, attributes={})
    run.run("plot_information")
    assert run.path("figure").read_bytes().startswith(b"%PDF")
    write_h5(information, {"latent": np.ones(2)}, units=UNITS, attributes={})
    assert run.status("plot_information", figure=tmp_path / "f.pdf") == 2
    assert "holds no physical" in capsys.readouterr().err
    assert not (tmp_path / "f.pdf").exists()
