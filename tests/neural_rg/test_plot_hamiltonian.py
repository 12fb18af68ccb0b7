"""The figure of Hamiltonian Monte Carlo: what is written in it, and chains that stand still."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from strata.artifacts import write_h5
from strata.neural_rg.plot_hamiltonian import chains_side_by_side

NewRun = Callable[..., Any]
EXACT, FORMULA, TITLE = 0.75, "$m$", "a run"


def evolved(n_therm: int = 10, n_steps: int = 200, n_chains: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for space, correlation in (("latent", 0.0), ("physical", 0.8)):
        series = np.zeros((n_therm + n_steps, n_chains))
        for step in range(1, len(series)):
            noise = rng.normal(0, 1, n_chains)
            series[step] = correlation * series[step - 1] + noise
        arrays[f"{space}/observable"] = EXACT + 0.1 * series
        arrays[f"{space}/accepted"] = rng.random((n_steps, n_chains)) < 0.8
    return arrays


def words(figure: Any) -> list[list[str]]:
    return [[t.get_text() for t in axis.get_legend().get_texts()] for axis in figure.get_axes()]


def test_the_legend_gives_acceptance_exact_value_and_autocorrelation_time() -> None:
    figure = chains_side_by_side(evolved(), EXACT, FORMULA, TITLE)
    course, memory = words(figure)
    assert course[0].startswith("latent: acceptance 0.8")
    assert "exact $m$ = 0.75" in course
    assert "thermalization" in course
    tau = {line.split(":")[0]: float(line.split()[3]) for line in memory}
    assert tau["latent"] == pytest.approx(1.0, abs=0.3)
    assert tau["physical"] == pytest.approx(9.0, abs=2.5)  # (1 + 0.8) / (1 - 0.8)
    plt.close(figure)


def test_the_exact_line_stands_where_it_should_and_only_if_there_is_one() -> None:
    with_line = chains_side_by_side(evolved(), EXACT, FORMULA, TITLE)
    heights = [line.get_ydata()[0] for line in with_line.get_axes()[0].lines]
    assert EXACT in heights
    without = chains_side_by_side(evolved(), None, FORMULA, TITLE)
    assert not any("exact" in word for word in words(without)[0])
    plt.close("all")


def test_chains_that_never_move_are_said_to() -> None:
    arrays = evolved()
    arrays["physical/observable"][:] = 0.3
    arrays["physical/accepted"][:] = False
    figure = chains_side_by_side(arrays, EXACT, FORMULA, TITLE)
    assert "physical: never moved" in words(figure)[1]
    figure.canvas.draw()
    plt.close(figure)


def test_stage_draws_what_the_stage_before_left(new_run: NewRun, tmp_path: Path) -> None:
    run = new_run()
    run.solve()
    arrays = evolved(4, 8, 6)
    write_h5(run.path("hmc"), arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    run.run("plot_hamiltonian")
    first = run.path("figure").read_bytes()
    run.run("plot_hamiltonian")
    assert run.path("figure").read_bytes() == first
    assert run.path("image").exists()


def test_the_exact_answer_of_another_target_is_refused(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = new_run(), new_run("other", target={"T": 3.0})
    other.solve()
    arrays = evolved(4, 8, 6)
    write_h5(run.path("hmc"), arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    assert run.status("plot_hamiltonian", exact=other.path("exact")) == 2
    assert "is the exact answer for" in capsys.readouterr().err
    assert not run.path("figure").exists()
