"""The figure of log-likelihoods: shares, distribution functions, their distance, bad input."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats

from strata.artifacts import write_h5
from strata.hmm_rnn.plot_likelihood import log_likelihood, main
from strata.stages import run_stage

N = 500
KEYS = ("rnn", "hmm")


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def evaluation(n_impossible: int = 0, z: float = -2.5) -> dict[str, Any]:
    random = np.random.default_rng(1)
    arrays: dict[str, Any] = {
        "log_likelihood/rnn": random.normal(-0.6, 0.13, N).round(2),
        "log_likelihood/hmm": random.normal(-0.5, 0.1, N).round(2),
    }
    arrays["log_likelihood/rnn"][:n_impossible] = -np.inf
    found = stats.ks_2samp(*arrays.values())
    return arrays | {
        "likelihood_test/z": np.array(z),
        "likelihood_test/ks": np.array(found.statistic),
        "likelihood_test/p_value": np.array(found.pvalue),
    }


@pytest.mark.parametrize("n_impossible", [0, 50])
def test_shares_are_of_all_sequences(n_impossible: int) -> None:
    arrays = evaluation(n_impossible)
    panel = log_likelihood(arrays).axes[0]
    outlines = [patch for patch in panel.patches if not patch.get_fill()]
    for key, patch, missing in zip(KEYS, outlines, (n_impossible, 0), strict=True):
        shares, edges, _ = patch.get_data()
        assert shares.sum() == pytest.approx(1 - missing / N)
        np.testing.assert_allclose(
            shares, np.histogram(arrays[f"log_likelihood/{key}"], edges)[0] / N
        )


@pytest.mark.parametrize("n_impossible", [0, 50])
def test_functions_are_shares_up_to_each_place(n_impossible: int) -> None:
    arrays = evaluation(n_impossible)
    figure = log_likelihood(arrays)
    _, functions, differences = figure.axes
    heights = []
    for key, line in zip(KEYS, functions.lines, strict=True):
        values = arrays[f"log_likelihood/{key}"]
        expected = [(values <= place).mean() for place in line.get_xdata()]
        np.testing.assert_allclose(line.get_ydata(), expected)
        assert line.get_drawstyle() == "steps-post"
        heights.append(line.get_ydata())
    np.testing.assert_allclose(differences.lines[0].get_ydata(), heights[0] - heights[1])
    assert functions.lines[0].get_ydata()[0] == n_impossible / N
    assert differences.get_xlabel() == "log-likelihood (nats/step)"


@pytest.mark.parametrize(("n_impossible", "shift"), [(0, 0.0), (300, 0.0), (0, 0.5)])
def test_the_upright_line_is_the_kolmogorov_smirnov_distance(
    n_impossible: int, shift: float
) -> None:
    arrays = evaluation(n_impossible)
    arrays["log_likelihood/rnn"] = arrays["log_likelihood/rnn"] + shift
    arrays["likelihood_test/ks"] = np.array(
        stats.ks_2samp(*(arrays[f"log_likelihood/{key}"] for key in KEYS)).statistic
    )
    curve, exact, upright = log_likelihood(arrays).axes[2].lines
    np.testing.assert_array_equal(exact.get_ydata(), [0.0, 0.0])
    assert (exact.get_color(), exact.get_linestyle()) == ("black", "--")
    foot, top = upright.get_ydata()
    assert foot == 0.0
    sign = -1.0 if shift else 1.0
    assert sign * top == pytest.approx(float(arrays["likelihood_test/ks"]))
    place = np.searchsorted(curve.get_xdata(), upright.get_xdata()[0])
    assert curve.get_ydata()[place] == top


def test_the_test_stands_in_words() -> None:
    arrays = evaluation()
    (text,) = log_likelihood(arrays).axes[1].texts
    words = text.get_text()
    difference = arrays["log_likelihood/rnn"].mean() - arrays["log_likelihood/hmm"].mean()
    assert f"KS distance {arrays['likelihood_test/ks']:.4f}" in words
    assert f"{difference:+.4f} nats/step".replace("-", "\N{MINUS SIGN}") in words
    assert "z = \N{MINUS SIGN}2.50" in words


def test_impossible_sequences_are_counted_in_words() -> None:
    figure = log_likelihood(evaluation(n_impossible=50, z=-np.inf))
    figure.canvas.draw()
    network, model = (text.get_text() for text in figure.axes[0].get_legend().get_texts())
    assert network.endswith("50 of 500 impossible")
    assert "impossible" not in model
    assert "difference of means" not in figure.axes[1].texts[0].get_text()


def test_a_network_of_impossible_sequences_can_be_drawn() -> None:
    figure = log_likelihood(evaluation(n_impossible=N, z=-np.inf))
    figure.canvas.draw()
    network = figure.axes[0].get_legend().get_texts()[0].get_text()
    assert network == "network: no sequence is possible,\n500 of 500 impossible"


def test_one_value_can_be_drawn() -> None:
    arrays = evaluation() | {f"log_likelihood/{key}": np.full(N, -0.5) for key in KEYS}
    figure = log_likelihood(arrays)
    figure.canvas.draw()
    shares = [patch.get_data()[0] for patch in figure.axes[0].patches]
    assert all(share.max() == 1.0 for share in shares)


# --- the stage ------------------------------------------------------------------------------------


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def arguments(folder: Path, source: Path) -> list[str]:
    figure, image = folder / "log_likelihood.pdf", folder / "log_likelihood.png"
    return [
        "--evaluation", str(source),
        "--log-likelihood", str(figure), "--log-likelihood-image", str(image),
    ]  # fmt: skip


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "evaluation.h5", evaluation())
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"log_likelihood.pdf", "log_likelihood.png"}
    assert not plt.get_fignums()


@pytest.mark.parametrize(("changes", "message"), [
    ({"likelihood_test/ks": None}, "holds no likelihood_test/ks"),
    ({"log_likelihood/rnn": np.zeros((2, 2))}, "expected log_likelihood/rnn to have the axes"),
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
