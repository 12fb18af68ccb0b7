"""Which experiments can be drawn over each other, what of, and how."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strata.artifacts import write_h5
from strata.comparison_figure import MOST_POINTS, Line, comparison_figure
from strata.comparisons import LONGEST_NAME, compared, comparison_name, files_compared
from strata.config import parse
from strata.curves import Constant, Curve, Stored
from strata.errors import UserError
from strata.experiments import load_workflow, read_yaml, workflow_settings
from strata.monitored import evaluations, exact_values
from strata.plotting import EXACT_LINE
from strata.workflow_settings import WorkflowSettings

ROOT = Path(__file__).parents[1]
BOUND = Curve("loss", "free energy", "nats", Constant(-2.0, "exact"), is_bound=True)
SHARE = Curve("accuracy", "accuracy", "1", Constant(0.9, "regression"))
LOSS = Curve("loss", "loss", "1", Constant(0.0, "plateaus"), log_axes="xy")


@pytest.fixture(scope="module")
def shipped() -> dict:
    settings = read_yaml(ROOT / "config" / "config.yaml")
    families = {name: str(ROOT / file) for name, file in settings["families"].items()}
    return load_workflow(workflow_settings({"families": families}))


# --- which ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("names", "sentence"), [
    (["mera_L9"], r"no experiment called 'mera_L9'; nearest known: mera_L\d"),
    (["mera_L8", "demo_hmm"], "mera_L8 is of the family neural_rg and demo_hmm of hmm_rnn"),
    (["../x"], r"no experiment called '\.\./x'"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused(shipped: dict, names: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        compared(names, shipped)


def test_what_was_not_trained_here_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "neural_rg.yaml"
    file.write_text("old: {original: {checkpoint: x.saving, parameters: null}}\n")
    experiments = load_workflow(workflow_settings({"families": {"neural_rg": str(file)}}))
    with pytest.raises(UserError, match=r"old was not trained here and has no history\.h5"):
        compared(["old"], experiments)


def test_experiments_are_chosen_by_a_list_or_a_text_with_commas() -> None:
    for value in (["a", "b"], "a,b", "a, b,"):
        assert parse(WorkflowSettings, {"compare": value}, "x").compare == ("a", "b")
    assert parse(WorkflowSettings, {}, "x").compare == ()
    with pytest.raises(UserError, match="x: compare: an experiment stands twice"):
        parse(WorkflowSettings, {"compare": "a,a"}, "x")
    with pytest.raises(UserError, match="x: compare: expected a list; got 5"):
        parse(WorkflowSettings, {"compare": 5}, "x")


def test_other_experiments_have_another_name() -> None:
    assert comparison_name(["a", "b"]) == "a+b"
    many = [f"experiment_number_{n}" for n in range(20)]
    names = {comparison_name(many), comparison_name(many[:-1]), comparison_name(many[::-1])}
    assert len(names) == 3
    assert all(len(name) <= LONGEST_NAME for name in names)


def test_the_files_of_a_comparison_are_those_of_its_runs_and_the_exact_answer(
    shipped: dict,
) -> None:
    files = files_compared([shipped["mera_L8_seeds"]])
    assert len(files) == len(set(files)) == 6 * 4 + 1
    assert "mera_L8_seeds/n_disentanglers~2_seed~1/history.h5" in files
    assert [file for file in files if file.startswith("exact/ising_L8")]


# --- the curve in files -----------------------------------------------------------------------


def test_a_curve_is_read_from_the_history_and_its_exact_answer(tmp_path: Path) -> None:
    steps, values = np.array([5, 10]), np.array([1.0, 0.5], dtype=np.float32)
    units = {"eval/step": "steps", "eval/loss": "nats"}
    write_h5(
        tmp_path / "history.h5", {"eval/step": steps, "eval/loss": values},
        units=units, attributes={},
    )  # fmt: skip
    found_steps, found = evaluations(tmp_path / "history.h5", BOUND)
    assert (found_steps.tolist(), found.tolist()) == ([5, 10], [1.0, 0.5])
    with pytest.raises(UserError, match="holds no eval/accuracy"):
        evaluations(tmp_path / "history.h5", SHARE)

    stored = Curve("loss", "loss", "1", Stored("{run}/task.h5", "drops/after", "p", factor=-2.0))
    assert exact_values(tmp_path, "some/run", stored).size == 0, "not there yet"
    (tmp_path / "some" / "run").mkdir(parents=True)
    write_h5(
        tmp_path / "some" / "run" / "task.h5", {"drops/after": np.array([3.0, 0.0])},
        units={"drops/after": "1"}, attributes={},
    )  # fmt: skip
    assert exact_values(tmp_path, "some/run", stored).tolist() == [-6.0, 0.0]
    assert exact_values(tmp_path, "some/run", BOUND).tolist() == [-2.0]


def test_every_family_says_what_its_curve_is(shipped: dict) -> None:
    for experiment in shipped.values():
        for run in experiment.runs.values():
            assert run.curve.metric
            assert run.curve.exact.label
            assert run.headline


# --- the figure -------------------------------------------------------------------------------


def line(
    label: str, values: Sequence[Sequence[float]], curve: Curve = BOUND, exact: object = -2.0
) -> Line:
    array = np.array(values, dtype=float)
    steps = np.arange(10, 10 * array.shape[1] + 1, 10)
    return Line(label, curve, steps, array, np.atleast_1d(np.array(exact, dtype=float)))


def drawn(panel: Axes) -> dict[str, np.ndarray]:
    """Return the heights of the lines of a panel by label; exact ones as they are."""
    return {str(found.get_label()): np.asarray(found.get_ydata()) for found in panel.get_lines()}


def finished(figure: Figure) -> list[Axes]:
    figure.draw_without_rendering()
    plt.close(figure)
    return figure.axes


SEEDS = [[1.0, 0.2, -1.0], [2.0, 0.4, -1.2], [3.0, 0.0, -1.4]]


def test_a_line_is_the_mean_over_seeds_and_its_band_one_standard_error() -> None:
    upper, lower = finished(comparison_figure([line("a", SEEDS), line("b", SEEDS[:1])], "t"))
    mean, error = np.mean(SEEDS, axis=0), np.std(SEEDS, axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(drawn(upper)["a"], mean)
    np.testing.assert_allclose(drawn(upper)["b"], SEEDS[0])
    np.testing.assert_allclose(drawn(lower)["a"], mean + 2.0)
    (band,) = upper.collections
    edges = band.get_paths()[0].vertices
    for step, low, high in zip((10, 20, 30), mean - error, mean + error, strict=True):
        at_step = edges[edges[:, 0] == step][:, 1]
        assert (at_step.min(), at_step.max()) == pytest.approx((low, high))
    assert lower.get_yscale() == "log"


def test_the_exact_answer_is_the_dashed_line() -> None:
    upper, _ = finished(comparison_figure([line("a", SEEDS)], "t"))
    (exact,) = [found for found in upper.get_lines() if found.get_label() == "exact"]
    assert np.allclose(exact.get_ydata(), -2.0)
    assert exact.get_linestyle() == "--"
    assert exact.get_color() == EXACT_LINE["color"]
    assert upper.get_ylim()[0] < -2.0


def test_of_different_exact_answers_the_difference_alone_is_drawn() -> None:
    (panel,) = finished(
        comparison_figure([line("a", SEEDS), line("b", [[-3.0, -4.0, -4.5]], exact=-5.0)], "t")
    )
    np.testing.assert_allclose(drawn(panel)["b"], [2.0, 1.0, 0.5])
    assert panel.get_ylabel() == "difference from\nexact (nats)"


def test_curves_of_different_kinds_have_panels_of_their_own() -> None:
    upper, lower = finished(
        comparison_figure([line("a", [[0.5, 0.6]], SHARE, 0.9), line("b", [[9, 8]], LOSS, 0)], "t")
    )
    assert set(drawn(upper)) == {"a", "regression"}
    assert set(drawn(lower)) == {"b"}, "a plateau at zero has no place on a logarithmic axis"
    assert upper.get_ylabel() == "accuracy (fraction)"


def test_all_plateaus_are_drawn_and_named_once() -> None:
    figure = comparison_figure([line("a", [[9.0, 3.0, 0.1]], LOSS, [8.0, 2.0, 0.0])], "t")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "plateaus"]
    (panel,) = finished(figure)
    heights = {
        float(found.get_ydata()[0]) for found in panel.get_lines() if len(found.get_xdata()) == 2
    }
    assert heights == {8.0, 2.0}


def test_many_lines_look_different() -> None:
    figure = comparison_figure([line(f"variant {n}", [[2.0 + n, 1.0]]) for n in range(20)], "t")
    panel, _ = finished(figure)
    looks = {(found.get_color(), found.get_linestyle()) for found in panel.get_lines()}
    assert len(looks) == 21
    assert comparison_figure([line(f"v{n}", [[2.0 + n, 1.0]]) for n in range(40)], "t")
    plt.close("all")


def test_a_long_run_is_thinned_and_keeps_its_ends() -> None:
    values = np.linspace(5.0, -1.0, 3000)
    panel, _ = finished(comparison_figure([line("a", [values])], "t"))
    shown = drawn(panel)["a"]
    assert len(shown) <= MOST_POINTS
    assert (shown[0], shown[-1]) == (values[0], values[-1])


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one line"):
        comparison_figure([], "t")
