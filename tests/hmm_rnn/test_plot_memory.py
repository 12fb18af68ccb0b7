"""The figures of memory: pairs at lags, dwells, entropies, hidden transitions, bad input."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from strata.artifacts import write_h5
from strata.hmm_rnn.comparison_panels import SAMPLES
from strata.hmm_rnn.plot_memory import (
    FIGURES,
    dwell_times,
    entropy_rate,
    hidden_transitions,
    lagged_pairs,
    main,
    survival,
)
from strata.stages import run_stage

STEPS, SYMBOLS = 30, 3
LAGS, LENGTHS = np.array([1, 2, 4, 8, 16]), np.arange(1, 6)
KEYS = [sample.key for sample in SAMPLES]


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def evaluation(n_states: int = 3) -> dict[str, Any]:
    random = np.random.default_rng(1)
    law = np.array([0.5, 0.1, 0.4])
    memory = (0.9**LAGS)[:, None, None]
    exact = memory * np.diag(law) + (1 - memory) * np.outer(law, law)
    arrays: dict[str, Any] = {
        "lags": LAGS,
        "pair_moments/exact": exact,
        "frequencies/exact": law,
        "entropy/lengths": LENGTHS,
        "entropy/lower": 0.5 - 0.3 * np.exp(-LENGTHS),
        "entropy/upper": 0.5 + 0.3 * np.exp(-LENGTHS),
        "transition_counts/exact": random.dirichlet(np.ones(n_states), n_states),
    }
    for key, noise in zip(KEYS, (0.01, 0.001), strict=True):
        arrays |= {
            f"pair_moments/{key}": exact + random.normal(0, noise, exact.shape),
            f"entropy/{key}": arrays["entropy/upper"] + random.normal(0, noise, len(LENGTHS)),
            f"dwell/{key}": np.array([
                np.bincount(random.geometric(0.3, 900).clip(max=STEPS) - 1, minlength=STEPS)
                for _ in range(n_states)
            ]),
            f"transition_counts/{key}": 1e4 * random.random((n_states, n_states)),
        }  # fmt: skip
    return arrays


def exact_line(panel: Axes) -> Line2D:
    (line,) = (
        line for line in panel.lines if line.get_color() == "black" and line.get_linestyle() == "--"
    )
    return line


def of_samples(panel: Axes) -> list[Line2D]:
    colors = [sample.color for sample in SAMPLES]
    return [line for line in panel.lines if line.get_color() in colors]


def test_pairs_are_traces_and_largest_differences() -> None:
    arrays = evaluation()
    figure = lagged_pairs(arrays)
    figure.canvas.draw()
    returns, differences = figure.axes
    exact = arrays["pair_moments/exact"]
    for key, point, far in zip(KEYS, of_samples(returns), of_samples(differences), strict=True):
        moments = arrays[f"pair_moments/{key}"]
        np.testing.assert_array_equal(point.get_xdata(), LAGS)
        np.testing.assert_allclose(
            point.get_ydata(), [sum(m[a, a] for a in range(SYMBOLS)) for m in moments]
        )
        assert point.get_linestyle() == "None", "samples are points, the exact answer is a line"
        expected = [np.abs(m - e).max() for m, e in zip(moments, exact, strict=True)]
        np.testing.assert_allclose(far.get_ydata(), expected)
    np.testing.assert_allclose(exact_line(returns).get_ydata(), [np.trace(e) for e in exact])
    memoryless = returns.lines[-1]
    np.testing.assert_allclose(memoryless.get_ydata(), np.full(2, 0.5**2 + 0.1**2 + 0.4**2))
    assert [tick.get_text() for tick in differences.get_xticklabels()] == [f"{lag}" for lag in LAGS]
    assert differences.get_xlabel() == "lag (steps)"


def test_survival_is_the_share_of_dwells_as_long() -> None:
    np.testing.assert_allclose(survival(np.array([5, 3, 0, 2])), [1.0, 0.5, 0.2, 0.2])


@pytest.mark.parametrize("n_states", [1, 2, 5, 6])
def test_every_state_has_a_panel_with_both_survival_functions(n_states: int) -> None:
    arrays = evaluation(n_states)
    arrays["dwell/rnn"][0, 5:] = 0
    arrays["dwell/hmm"][0, 5:] = 0
    figure = dwell_times(arrays)
    panels = [panel for panel in figure.axes if panel.axison]
    assert [panel.get_title(loc="left") for panel in panels] == [
        f"state {state}" for state in range(n_states)
    ]
    for state, panel in enumerate(panels):
        for key, line in zip(KEYS, panel.lines, strict=True):
            counts = arrays[f"dwell/{key}"][state]
            lengths = np.repeat(np.arange(1, STEPS + 1), counts)
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, lengths.max() + 1))
            expected = [(lengths >= length).mean() for length in line.get_xdata()]
            np.testing.assert_allclose(line.get_ydata(), expected)
            assert line.get_label().endswith(f"mean {lengths.mean():.2f}")
        assert panel.get_yscale() == "log"
        assert panel.get_xlim()[0] == 0
        assert panel.get_xlim()[1] > max(line.get_xdata()[-1] for line in panel.lines)
    assert figure.get_supxlabel() == "length of a dwell (steps)"


def test_a_state_without_dwells_says_so() -> None:
    arrays = evaluation()
    arrays["dwell/rnn"][1] = 0
    figure = dwell_times(arrays)
    legend = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert legend[0] == "network: no dwell"
    assert legend[1].startswith("HMM: mean")


def test_entropies_stand_between_their_bounds() -> None:
    arrays = evaluation()
    figure = entropy_rate(arrays)
    entropies, differences = figure.axes
    upper = arrays["entropy/upper"]
    np.testing.assert_array_equal(exact_line(entropies).get_ydata(), upper)
    np.testing.assert_array_equal(entropies.lines[1].get_ydata(), arrays["entropy/lower"])
    np.testing.assert_array_equal(exact_line(differences).get_ydata(), [0.0, 0.0])
    for key, point, far in zip(KEYS, of_samples(entropies), of_samples(differences), strict=True):
        np.testing.assert_array_equal(point.get_xdata(), LENGTHS)
        np.testing.assert_array_equal(point.get_ydata(), arrays[f"entropy/{key}"])
        np.testing.assert_allclose(far.get_ydata(), arrays[f"entropy/{key}"] - upper)
    assert entropies.get_ylabel() == "entropy (nats/symbol)"


def test_hidden_transitions_are_shares_of_their_row() -> None:
    arrays = evaluation()
    arrays["transition_counts/rnn"][2] = 0.0
    figure = hidden_transitions(arrays)
    counts, exact = arrays["transition_counts/rnn"], arrays["transition_counts/exact"]
    expected = counts[:2] / counts[:2].sum(axis=1, keepdims=True)
    left, middle, right = (panel.images[0].get_array() for panel in figure.axes)
    np.testing.assert_array_equal(left, exact)
    np.testing.assert_allclose(middle[:2], expected)
    np.testing.assert_allclose(right[:2], expected - exact[:2])
    assert middle.mask[2].all()
    assert figure.axes[0].get_ylabel() == "state now"


# --- the stage ------------------------------------------------------------------------------------

OUTPUTS = [f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")]


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def arguments(folder: Path, source: Path) -> list[str]:
    files = {"evaluation": source}
    for file in OUTPUTS:
        name, kind = file.replace("_", "-").split(".")
        files[name if kind == "pdf" else f"{name}-image"] = folder / file
    return [text for name, path in files.items() for text in (f"--{name}", str(path))]


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "evaluation.h5", evaluation(n_states=2))
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == set(OUTPUTS)
    assert not plt.get_fignums()


@pytest.mark.parametrize(("changes", "message"), [
    ({"entropy/upper": None}, "holds no entropy/upper"),
    ({"pair_moments/hmm": np.ones((5, 3))}, "pair_moments/hmm to have the axes [lag, symbol, next"),
    ({"dwell/hmm": np.ones((4, STEPS))}, "[state, step] with state = 3, step = "),
])  # fmt: skip
def test_a_file_that_cannot_be_drawn_is_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = {name: each for name, each in (evaluation() | changes).items() if each is not None}
    source = written(tmp_path / "evaluation.h5", arrays)
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(source) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
