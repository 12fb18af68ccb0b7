"""The figures of a network's mechanism: what is drawn, reference lines, poor data, bad input."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

from strata.artifacts import write_h5
from strata.hmm_rnn import residency as definitions
from strata.hmm_rnn.dissection import FORKED
from strata.hmm_rnn.kick_panels import MOST_PAIRS, NO_PAIRS, kick_neurons, shown_pairs
from strata.hmm_rnn.mechanism_settings import ZONES
from strata.hmm_rnn.plot_mechanism import (
    LAYOUT,
    main,
    memoryless_regularity,
    noise_sensitivity,
    residency,
    stochastic_resonance,
)
from strata.hmm_rnn.trajectory_panels import look_of
from strata.layouts import read_arrays
from strata.plotting import save_figure
from strata.stages import run_stage

STATES, UNITS, CONTROLS, MEMBERS, MOMENTS = 80, 12, 5, 3, 4
SCALES = np.array([0.2, 1.0, 5.0])


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def kick(n_pairs: int, random: np.random.Generator) -> dict[str, Any]:
    effects = random.normal(size=(UNITS, n_pairs))
    groups = np.argsort(-effects, axis=0)[:MEMBERS].T
    symbols = [(a, b) for a in range(6) for b in range(6) if a != b][:n_pairs]
    return {
        "pairs": np.array(symbols, dtype=np.int64).reshape(-1, 2),
        "n_switches": random.permutation(n_pairs) + 60,
        "correlation": effects,
        "score": effects.max(axis=1, initial=0.0),
        "unit_change": random.normal(0.0, 0.1, UNITS),
        "unit_errors": np.full(UNITS, 0.02),
        "groups": np.stack([groups, groups]),
        "group_pair_change": random.uniform(-0.9, 0.5, (2, n_pairs, n_pairs)),
        "control_pair_change": random.uniform(-0.3, 0.5, (2, n_pairs, CONTROLS, n_pairs)),
        "pair_p_values": random.uniform(0.1, 1.0, (2, n_pairs)),
    }


def mechanism(n_pairs: int = 4) -> dict[str, Any]:
    random = np.random.default_rng(5)
    zones = np.arange(STATES) % len(ZONES)
    kinds = {
        kind: {
            "switch_rate": np.array([0.6, 0.3, 0.1]) * factor,
            "switch_rate_errors": np.array([0.02, 0.01, 0.03]),
            "regularity": np.array([1.5, 1.1, 0.9]) * factor,
        }
        for kind, factor in (("emitted", 1.0), ("most_probable", 0.5))
    }
    return {
        "residency/scores": random.normal(size=(STATES, 3)),
        "residency/times": np.array([1.5, 5.0, 20.0, 30.0])[zones] + 0.01 * np.arange(STATES),
        "residency/zones": zones,
        "residency/zone_shares": np.array([0.1, 0.2, 0.3, 0.4]),
        "residency/limits": np.array([2.5, 8.0, 0.8]),
        "residency/cap": np.int64(60),
        "forks/gammas": np.array([0.0, 1.0]),
        "forks/spread": random.uniform(1.0, 2.0, (3, 2, MOMENTS)),
        "forks/spread_errors": np.full((3, 2, MOMENTS), 0.05),
        "forks/norms": np.array([2.0, 4.0, 8.0], dtype=np.float32),
        "forks/n_states": np.array([10, 20, 30]),
        "resonance/scales": SCALES,
        **{f"kick/{name}": array for name, array in kick(n_pairs, random).items()},
        **{f"resonance/{k}/{name}": a for k, arrays in kinds.items() for name, a in arrays.items()},
    }


def panel_of(figure: Any, letter: str) -> Axes:
    return next(a for a in figure.axes if a.get_title(loc="left") == f"({letter})")


def error_bars(container: Any) -> np.ndarray:
    """Half the heights of the error bars."""
    segments = np.array(container[2][0].get_segments())
    return (segments[:, 1, 1] - segments[:, 0, 1]) / 2


def legend_words(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_zones_are_those_of_the_analysis() -> None:
    assert ZONES == definitions.ZONES
    assert ZONES[: len(FORKED)] == FORKED


# --- residency ------------------------------------------------------------------------------------


def test_states_have_the_colour_of_their_time_and_the_marker_of_their_zone() -> None:
    arrays = mechanism()
    figure = residency(arrays)
    found = panel_of(figure, "a").collections
    assert len(found) == len(ZONES)
    for zone, points in zip(range(len(ZONES) - 1, -1, -1), found, strict=True):
        mine = arrays["residency/zones"] == zone
        np.testing.assert_allclose(points.get_offsets(), arrays["residency/scores"][mine, :2])
        np.testing.assert_allclose(points.get_array(), arrays["residency/times"][mine])
        assert points.norm.vmax == arrays["residency/times"].max()
    assert len({look_of(zone).marker for zone in range(len(ZONES))}) == len(ZONES)
    assert legend_words(figure) == [
        "transition: 10.0 %", "kick: 20.0 %", "cluster: 30.0 %", "between: 40.0 %",
    ]  # fmt: skip
    assert figure.axes[-1].get_ylabel() == "residency time (steps)"


def test_the_histogram_holds_all_states_between_the_limits_of_the_zones() -> None:
    arrays = mechanism()
    panel = panel_of(residency(arrays), "b")
    assert sum(bar.get_height() for bar in panel.patches) == STATES
    assert [line.get_xdata()[0] for line in panel.lines] == [2.5, 8.0]
    assert {line.get_linestyle() for line in panel.lines} == {"--"}
    assert panel.get_xlabel() == "residency time (steps)"


def test_states_that_all_leave_at_once_are_drawn() -> None:
    arrays = mechanism()
    arrays["residency/times"][:], arrays["residency/zones"][:] = 1.0, 0
    figure = residency(arrays)
    figure.canvas.draw()
    assert sum(bar.get_height() for bar in panel_of(figure, "b").patches) == STATES


# --- sensitivity to noise -------------------------------------------------------------------------


def test_spreads_of_every_zone_and_share_have_their_errors() -> None:
    arrays = mechanism()
    figure = noise_sensitivity(arrays)
    norms = arrays["forks/norms"].astype(float)
    for letter, units in (("a", np.ones(3)), ("b", norms)):
        containers = iter(panel_of(figure, letter).containers)
        for zone in range(3):
            for share in range(2):
                drawn = next(containers)
                line = drawn[0]
                np.testing.assert_array_equal(line.get_xdata(), np.arange(1, MOMENTS + 1))
                spread = arrays["forks/spread"][zone, share] / units[zone]
                np.testing.assert_allclose(line.get_ydata(), spread)
                np.testing.assert_allclose(error_bars(drawn), 0.05 / units[zone])
                assert line.get_color() == look_of(zone).color
                assert line.get_linestyle() == ("-" if share == 0 else "--")
        zero = panel_of(figure, letter).lines[-1]
        assert list(zero.get_ydata()) == [0.0, 0.0]
    assert legend_words(figure) == [
        "transition (10)", "γ = 0", "kick (20)", "γ = 1", "cluster (30)", " ",
    ]  # fmt: skip
    assert panel_of(figure, "b").get_xlabel() == "steps after the fork"


def test_a_zone_without_states_leaves_a_gap() -> None:
    arrays = mechanism()
    arrays["forks/n_states"][0] = 0
    for name in ("spread", "spread_errors", "norms"):
        arrays[f"forks/{name}"][0] = np.nan
    figure = noise_sensitivity(arrays)
    figure.canvas.draw()
    assert "transition (0)" in legend_words(figure)


# --- kick neurons ---------------------------------------------------------------------------------


def test_effect_sizes_are_ranked_and_the_group_is_marked() -> None:
    arrays = mechanism()
    panel = panel_of(kick_neurons(arrays), "a")
    for pair, line in enumerate(panel.lines[:4]):
        sizes = arrays["kick/correlation"][:, pair]
        np.testing.assert_array_equal(line.get_ydata(), np.sort(sizes)[::-1])
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, UNITS + 1))
        assert line.get_markevery() == list(range(MEMBERS))
    assert list(panel.lines[-1].get_ydata()) == [0.0, 0.0]
    words = [text.get_text() for text in panel.get_legend().get_texts()]
    assert words == [f"{a} → {b}" for a, b in arrays["kick/pairs"]]


def test_a_groups_change_stands_beside_its_controls_with_its_p_value() -> None:
    arrays = mechanism()
    panel = panel_of(kick_neurons(arrays), "b")
    lines, texts = iter(panel.lines), iter(panel.texts)
    for pair in range(4):
        for kind in range(2):
            controls, group = next(lines), next(lines)
            expected = arrays["kick/control_pair_change"][kind, pair, :, pair]
            np.testing.assert_array_equal(controls.get_ydata(), expected)
            assert group.get_ydata()[0] == arrays["kick/group_pair_change"][kind, pair, pair]
            assert np.mean(controls.get_xdata()) == pytest.approx(group.get_xdata()[0])
            assert (group.get_markerfacecolor() == "white") == (kind == 1)
            assert next(texts).get_text() == f"{arrays['kick/pair_p_values'][kind, pair]:.2f}"
    assert list(next(lines).get_ydata()) == [0.0, 0.0]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == [
        "0 → 1",
        "0 → 2",
        "0 → 3",
        "0 → 4",
    ]


def test_every_unit_alone_stands_at_its_score_and_change() -> None:
    arrays = mechanism()
    arrays["kick/unit_change"][2] = np.nan
    drawn = panel_of(kick_neurons(arrays), "c").containers[0]
    kept = np.arange(UNITS) != 2
    np.testing.assert_array_equal(drawn[0].get_xdata(), arrays["kick/score"][kept])
    np.testing.assert_array_equal(drawn[0].get_ydata(), arrays["kick/unit_change"][kept])
    np.testing.assert_allclose(error_bars(drawn), 0.02)


def test_of_many_pairs_those_with_the_most_switches_are_shown() -> None:
    arrays = mechanism(n_pairs=30)
    pairs = shown_pairs(arrays["kick/n_switches"])
    assert len(pairs) == MOST_PAIRS
    assert min(arrays["kick/n_switches"][pairs]) == 60 + 30 - MOST_PAIRS
    assert pairs == sorted(pairs)
    figure = kick_neurons(arrays)
    line = panel_of(figure, "a").lines[1]
    expected = np.sort(arrays["kick/correlation"][:, pairs[1]])[::-1]
    np.testing.assert_array_equal(line.get_ydata(), expected)


def test_a_network_without_pairs_is_drawn() -> None:
    arrays = mechanism(n_pairs=0)
    figure = kick_neurons(arrays)
    figure.canvas.draw()
    for letter in "ab":
        assert [text.get_text() for text in panel_of(figure, letter).texts] == [NO_PAIRS]
    assert len(panel_of(figure, "c").containers[0][0].get_xdata()) == UNITS
    arrays["kick/unit_change"][:] = np.nan
    words = [text.get_text() for text in panel_of(kick_neurons(arrays), "c").texts]
    assert words == ["the intact network never switches"]


def test_infinite_effects_and_rates_without_a_value_are_drawn() -> None:
    arrays = mechanism()
    arrays["kick/correlation"][0] = np.inf
    arrays["kick/score"][0] = np.inf
    arrays["kick/group_pair_change"][:], arrays["kick/control_pair_change"][:] = np.nan, np.nan
    figure = kick_neurons(arrays)
    figure.canvas.draw()
    assert np.isfinite(panel_of(figure, "a").get_ylim()).all()


# --- resonance ------------------------------------------------------------------------------------


def test_regularity_and_rate_of_both_kinds_against_the_noise() -> None:
    arrays = mechanism()
    figure = stochastic_resonance(arrays)
    regularity, rate = figure.axes
    for number, kind in enumerate(("emitted", "most_probable")):
        line, drawn = regularity.lines[number], rate.containers[number]
        np.testing.assert_array_equal(line.get_xdata(), SCALES)
        np.testing.assert_allclose(line.get_ydata(), arrays[f"resonance/{kind}/regularity"])
        rates = arrays[f"resonance/{kind}/switch_rate"]
        np.testing.assert_allclose(drawn[0].get_ydata(), rates)
        np.testing.assert_allclose(error_bars(drawn), [0.02, 0.01, 0.03])
    reference = regularity.lines[2]
    np.testing.assert_allclose(reference.get_ydata(), 1 / np.sqrt(1 - np.array([0.6, 0.3, 0.1])))
    assert reference.get_linestyle() == "--"
    for panel in (regularity, rate):
        assert panel.lines[-1].get_xdata()[0] == 1.0
        assert panel.get_xscale() == "log"
    assert rate.get_xlabel() == "standard deviation of the noise (1)"
    assert rate.get_ylabel() == "switches per step"
    assert legend_words(figure) == ["emitted", "most probable", "without memory"]


def test_drawn_geometric_dwells_are_as_regular_as_the_line_says() -> None:
    dwells = np.random.default_rng(6).geometric(0.4, size=200000)
    found = dwells.mean() / dwells.std()
    assert memoryless_regularity(np.array([0.4, 1.0]))[0] == pytest.approx(found, rel=0.01)
    assert np.isnan(memoryless_regularity(np.array([0.4, 1.0]))[1])


def test_symbols_that_never_switch_and_one_scale_are_drawn() -> None:
    arrays = mechanism()
    for name in [name for name in arrays if name.startswith("resonance/")]:
        arrays[name] = arrays[name][1:2]
        if name.endswith("regularity"):
            arrays[name] = np.array([np.nan if "emitted" in name else np.inf])
        elif name.endswith("rate"):
            arrays[name] = np.zeros(1)
    figure = stochastic_resonance(arrays)
    figure.canvas.draw()
    assert np.isfinite(figure.axes[0].get_ylim()).all()


# --- the stage ------------------------------------------------------------------------------------


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def arguments(folder: Path, source: Path) -> list[str]:
    words = ["--mechanism", str(source)]
    for name in ("residency", "noise-sensitivity", "kick-neurons", "stochastic-resonance"):
        words += [f"--{name}", str(folder / f"{name}.pdf")]
        words += [f"--{name}-image", str(folder / f"{name}.png")]
    return words


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "mechanism.h5", mechanism())
    main(arguments(tmp_path / "a", source))
    assert len(list((tmp_path / "a").iterdir())) == 8
    arrays = read_arrays(source, LAYOUT)
    for draw in (residency, noise_sensitivity, kick_neurons, stochastic_resonance):
        name = f"{draw.__name__.replace('_', '-')}.pdf"
        save_figure(draw(arrays), [tmp_path / "b" / name])
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not plt.get_fignums()


def test_a_file_without_pairs_is_read(tmp_path: Path) -> None:
    arrays = mechanism(n_pairs=0)
    read = read_arrays(written(tmp_path / "mechanism.h5", arrays), LAYOUT)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize(("changes", "message"), [
    ({"forks/norms": None}, "holds no forks/norms"),
    ({"residency/times": np.zeros(3)}, "residency/times to have the axes [state] with state = 80"),
    ({"kick/groups": np.zeros((2, 5, 3), int)}, "kick/groups to have the axes [2, pair, member]"),
    ({"resonance/scales": np.zeros(0)}, "resonance/scales to have the axes [scale] with scale > 0"),
])  # fmt: skip
def test_a_file_that_cannot_be_drawn_is_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = {key: each for key, each in (mechanism() | changes).items() if each is not None}
    source = written(tmp_path / "mechanism.h5", arrays)
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(source) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
