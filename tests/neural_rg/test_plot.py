"""The figure of a run: the exact line where the exact value is, and limits that come from data."""

import warnings
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from strata.history import History
from strata.neural_rg import plot
from strata.neural_rg.learner import UNITS
from strata.neural_rg.plot import loss_and_acceptance, running_mean
from strata.neural_rg.solve import UNITS as EXACT_UNITS
from strata.neural_rg.solve import solve
from strata.neural_rg.target_settings import (
    FiveRingsSettings,
    IsingSettings,
    RingSettings,
    ScalarFieldSettings,
    TargetSettings,
    TwoGaussiansSettings,
    WaveSettings,
)

NewRun = Callable[..., Any]
Table = dict[str, np.ndarray]

EXACT = -37.3767


@pytest.fixture(autouse=True)
def _closed_figures() -> Any:
    yield
    plt.close("all")


def training(n: int, above: float, *, noise: float = 0.3, start: float = 18.0) -> Table:
    """A loss that falls from `start` to `above` nats over the exact value, with noise."""
    random = np.random.default_rng(n)
    step = np.arange(1, n + 1)
    decay = (start - above) * np.exp(-(step - 1) / 20.0) if n > 1 else 0.0
    return {
        "step": step,
        "variational": EXACT + above + decay + noise * random.normal(size=n),
        "acceptance": np.clip(0.3 + 0.05 * random.normal(size=n), 0, 1),
    }


def evaluations(steps: list[int], above: list[float]) -> Table:
    return {"step": np.array(steps), "variational": EXACT + np.array(above)}


def drawn(train: Table, evaluated: Table) -> Figure:
    """The figure, rendered once so that every tick and label exists."""
    figure = loss_and_acceptance(train, evaluated, EXACT, "a title")
    figure.canvas.draw()
    return figure


def test_figure_says_what_it_shows() -> None:
    figure = drawn(training(400, 0.5), evaluations([100, 200, 400], [3.0, 1.0, 0.5]))
    loss, gap, acceptance = figure.axes
    assert figure.get_suptitle() == "a title"
    assert loss.get_ylabel() == "variational free\nenergy (nats)"
    assert gap.get_ylabel() == "gap to exact\n(nats)"
    assert acceptance.get_ylabel() == "acceptance\n(fraction)"
    assert acceptance.get_xlabel() == "training step"
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["(a)", "(b)", "(c)"]
    legend = loss.get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["flow", "exact \N{MINUS SIGN}ln $Z_x$ = \N{MINUS SIGN}37.3767"]


def test_the_dashed_line_stands_at_the_exact_value() -> None:
    loss = drawn(training(400, 0.5), evaluations([400], [0.5])).axes[0]
    lines = [line for line in loss.get_lines() if str(line.get_label()).startswith("exact")]
    assert len(lines) == 1
    assert set(np.asarray(lines[0].get_ydata())) == {EXACT}
    assert lines[0].get_linestyle() == "--"
    assert lines[0].get_color() == "black"


def test_curves_are_the_data_and_their_running_mean() -> None:
    train = training(400, 0.5)
    evaluated = evaluations([100, 200, 400], [3.0, 1.0, 0.5])
    loss, gap, acceptance = drawn(train, evaluated).axes
    for panel, name in ((loss, "variational"), (acceptance, "acceptance")):
        raw, mean = (np.asarray(line.get_ydata()) for line in panel.get_lines()[:2])
        np.testing.assert_array_equal(raw, train[name])
        np.testing.assert_allclose(mean[10:-10], running_mean(train[name], 4)[10:-10])
    np.testing.assert_allclose(np.asarray(gap.get_lines()[0].get_ydata()), [3.0, 1.0, 0.5])
    assert np.asarray(gap.get_lines()[0].get_xdata()).tolist() == [100, 200, 400]


def test_gap_is_logarithmic_in_plain_numbers() -> None:
    gap = drawn(training(400, 0.5), evaluations([100, 400], [8.0, 0.04])).axes[1]
    assert gap.get_yscale() == "log"
    low, high = gap.get_ylim()
    assert 0 < low < 0.04
    assert high > 8.0
    labels = {text.get_text() for text in gap.get_yticklabels()}
    assert {"0.1", "1"} <= labels
    assert not any("10^" in label for label in labels)


@pytest.mark.parametrize("scale", [0.1, 1.0, 50.0])
def test_limits_come_from_the_data(scale: float) -> None:
    """The panel holds all of the loss but its first steps, and the exact line, and little else."""
    train = training(400, 0.5 * scale, noise=0.1 * scale, start=18 * scale)
    loss, _, acceptance = drawn(train, evaluations([400], [0.5 * scale])).axes
    low, high = loss.get_ylim()
    settled = train["variational"][20:]
    assert low < min(EXACT, settled.min())
    assert settled.max() < high
    span = settled.max() - min(EXACT, settled.min())
    assert high - low < 1.3 * span
    assert acceptance.get_xlim() == (0, 400)
    assert acceptance.get_ylim() == (0, 1)


@pytest.mark.parametrize("n", [1, 60])
@pytest.mark.parametrize("above", [-0.4, -1e-3, 0.0, 1e-3, 0.7])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_estimates_may_fall_below_the_exact_value(n: int, above: float, noise: float) -> None:
    """By chance at convergence: everything stays in view, with the axis the right way up."""
    train = training(n, above, noise=noise, start=above)
    loss, gap, acceptance = drawn(train, evaluations([n], [above])).axes
    low, high = loss.get_ylim()
    settled = train["variational"][n // 20 :]
    assert low < min(EXACT, settled.min())
    assert max(EXACT, settled.max()) < high
    shown = np.asarray(gap.get_lines()[0].get_ydata())
    np.testing.assert_allclose(shown, [above] if above > 0 else [], rtol=1e-6)
    assert gap.get_yscale() == "log"
    assert acceptance.get_xlim() == (0, n)


@pytest.mark.parametrize("window", [1, 2, 3, 8])
def test_running_mean_shrinks_at_the_ends(window: int) -> None:
    values = np.random.default_rng(0).normal(size=20)
    found = running_mean(values, window)
    ahead, behind = window // 2, (window - 1) // 2
    expected = [values[max(0, i - ahead) : i + behind + 1].mean() for i in range(20)]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(running_mean(np.ones(7), 4), np.ones(7))


CAPTIONS: list[tuple[TargetSettings, str]] = [
    (IsingSettings(L=16), "Ising 16 × 16, periodic, $T$ = 2.2692 $J/k_B$"),
    (IsingSettings(L=8, boundary="open", T=3.0), "Ising 8 × 8, open, $T$ = 3 $J/k_B$"),
    (IsingSettings(L=32, d=1, K=0.5), "Ising 32, periodic, $T$ = 2 $J/k_B$"),
    (ScalarFieldSettings(L=4), "$\\phi^4$ 4 × 4, periodic, κ = 0.15, λ = 1.145"),
    (RingSettings(), "one ring"),
    (FiveRingsSettings(), "five rings"),
    (WaveSettings(width=3.0), "sine wave of width 3"),
    (TwoGaussiansSettings(offset=1.5), "two Gaussians at ±1.5"),
]


@pytest.mark.parametrize(("settings", "text"), CAPTIONS)
def test_caption_says_what_was_learned(settings: TargetSettings, text: str) -> None:
    assert settings.caption == text


def test_every_letter_of_a_caption_is_in_the_font() -> None:
    """A missing one would be a warning."""
    title = "\n".join(text for _, text in CAPTIONS)
    figure = loss_and_acceptance(training(5, 1.0), evaluations([5], [1.0]), EXACT, title)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    assert figure.get_suptitle() == title


def with_history(run: Any, train: Table, evaluated: Table) -> Any:
    """Put a history and the exact answer into a run's folder."""
    history = History(run.path("history"), UNITS)
    if train:
        history.append("train", train)
    history.append("eval", evaluated)
    history.finish({})
    run.solve()
    return run


@pytest.mark.parametrize("target", [{}, {"name": "ring2d"}], ids=["lattice", "plane"])
def test_stage_draws_the_same_bytes_again(target: dict[str, Any], new_run: NewRun) -> None:
    run = new_run(target=target, flow={"name": "realnvp"})
    with_history(run, training(120, 0.5), evaluations([100, 120], [1.0, 0.5]))
    run.run("plot")
    first = [run.path(name).read_bytes() for name in ("figure", "image")]
    assert first[0].startswith(b"%PDF")
    assert first[1].startswith(b"\x89PNG")
    run.run("plot")
    assert [run.path(name).read_bytes() for name in ("figure", "image")] == first
    assert run.names() == {"history.h5", "exact.h5", "loss_acc.pdf", "loss_acc.png"}
    assert not plt.get_fignums(), "a saved figure is closed"


@pytest.mark.parametrize("target", [{"T": 2.5}, {"name": "wave"}], ids=["lattice", "plane"])
def test_stage_shows_the_runs_own_exact_answer_under_its_caption(
    target: dict[str, Any], new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(target=target, flow={"name": "realnvp"})
    train, evaluated = training(40, 0.5), evaluations([20, 40], [1.0, 0.5])
    with_history(run, train, evaluated)
    shown: list[tuple[Any, ...]] = []

    def spied(*arguments: Any) -> Figure:
        shown.append(arguments)
        return loss_and_acceptance(*arguments)

    monkeypatch.setattr(plot, "loss_and_acceptance", spied)
    run.run("plot")
    ((train_shown, evaluated_shown, free_energy, title),) = shown
    np.testing.assert_array_equal(train_shown["variational"], train["variational"])
    np.testing.assert_array_equal(evaluated_shown["step"], evaluated["step"])
    assert free_energy == -solve(run.settings.target)[0]["log_partition_field"]
    assert title == run.settings.target.caption


def test_the_exact_file_has_the_units_of_the_axes() -> None:
    assert EXACT_UNITS["log_partition_field"] == UNITS["variational"] == "nats"


def test_a_history_without_training_rows_is_one_sentence(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `record_every` larger than `steps` leaves it."""
    run = with_history(new_run(), {}, evaluations([5], [1.0]))
    assert run.status("plot") == 2
    complaint = capsys.readouterr().err
    assert "history.h5" in complaint
    assert complaint.count("\n") == 1
    assert not {"loss_acc.pdf", "loss_acc.png"} & run.names()


@pytest.mark.parametrize("missing", ["history", "exact"])
def test_a_missing_input_is_named(
    missing: str, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_history(new_run(), training(5, 1.0), evaluations([5], [1.0]))
    run.path(missing).unlink()
    assert run.status("plot") == 2
    assert f"{run.path(missing)} does not exist" in capsys.readouterr().err
    assert not {"loss_acc.pdf", "loss_acc.png"} & run.names()
