"""The stage `dissect`: what it writes, what that says of the network, what it refuses."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from strata.artifacts import provenance, read_attributes, read_h5, write_h5
from strata.checkpoints import save_tensors
from strata.hmm_rnn import dissect
from strata.hmm_rnn.config import RunSettings
from strata.hmm_rnn.dissection import share_as_low
from strata.hmm_rnn.mechanism_settings import ZONES
from strata.hmm_rnn.rnn import NoiseDrivenRNN
from strata.stages import run_stage

N_UNITS = 8
SETTINGS: dict[str, Any] = {
    "seed": 3,
    "hmm": {"model": "HMMTwo"},
    "network": {"input_size": 4, "hidden_size": N_UNITS},
    "mechanism": {
        "n_chains": 6, "n_steps": 200, "burn_in": 20, "n_points": 40, "n_draws": 4,
        "max_steps": 30, "n_fork_points": 10, "n_forks": 5, "fork_steps": 4, "gammas": [0.0, 1.0],
        "distance": 2, "min_dwell": 1, "min_switches": 5, "group_size": 2, "n_controls": 7,
        "n_nearest": 4, "n_silenced_chains": 5, "n_silenced_steps": 60, "silenced_burn_in": 10,
        "noise_scales": [0.5, 1.0, 2.0],
    },
}  # fmt: skip
ONE_LAYER = SETTINGS["network"]
DEEP = {**ONE_LAYER, "num_layers": 2, "biased": [True, True]}


@dataclass(frozen=True)
class Run:
    """A folder with what the stage reads, made of settings and of a network's weights."""

    folder: Path
    settings: RunSettings
    network: NoiseDrivenRNN

    def put(self, network: NoiseDrivenRNN, trained_with: str | None = None) -> None:
        content: dict[str, Any] = {"last": network.state_dict()}
        content["settings"] = trained_with or self.settings.sections_of("train")
        save_tensors(self["model"], content)

    def put_components(self, n_units: int = N_UNITS, **other: Any) -> None:
        """Write components that are the first units themselves, and a mean of 1, 2, ..."""
        settings = RunSettings.model_validate(SETTINGS | {"network": ONE_LAYER} | other)
        if not other:
            settings = self.settings
        arrays = {
            "pca/components": np.eye(5, n_units),
            "pca/mean": np.arange(1.0, 1.0 + n_units),
        }
        origin = provenance(settings.sections_of("reverse"))
        write_h5(self["dynamics"], arrays, units=dict.fromkeys(arrays, "1"), attributes=origin)

    def dissect(self) -> dict[str, np.ndarray]:
        dissect.main(self.arguments())
        return read_h5(self["mechanism"])

    def arguments(self) -> list[str]:
        names = ("settings", "model", "dynamics", "mechanism")
        return [word for name in names for word in (f"--{name}", str(self[name]))]

    def status(self) -> int:
        with pytest.raises(SystemExit) as left:
            run_stage(partial(dissect.main, self.arguments()))
        assert isinstance(left.value.code, int)
        return left.value.code

    def __getitem__(self, name: str) -> Path:
        return self.folder / name


def lingering(settings: RunSettings) -> NoiseDrivenRNN:
    """Return a network that keeps most of its activity, and so its symbol for a while.

    Units drive their own successors above all, and the first three a symbol each.
    """
    shape = settings.network
    network = NoiseDrivenRNN(
        input_size=shape.input_size,
        hidden_size=shape.hidden_size,
        num_layers=shape.num_layers,
        output_size=3,
        biased=shape.biased,
        generator=torch.Generator().manual_seed(1),
    ).requires_grad_(False)
    for layer in network.layers:
        layer.weight_recurrent.mul_(0.1).add_(0.8 * torch.eye(N_UNITS))
    for higher in network.layers[1:]:
        higher.weight_input.mul_(0.1).add_(0.3 * torch.eye(N_UNITS))
    network.layers[0].weight_input.mul_(3.0)
    network.readout_weight.copy_(2.0 * torch.eye(3, N_UNITS))
    return network


def run_of(folder: Path, of_network: dict[str, Any] | None = None) -> Run:
    """Write what the stage reads of a lingering network."""
    settings = RunSettings.model_validate(SETTINGS | {"network": of_network or ONE_LAYER})
    run = Run(folder, settings, lingering(settings))
    run["settings"].write_text(settings.canonical_json(), encoding="utf-8")
    run.put(run.network)
    run.put_components()
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_of(tmp_path)


def shapes_of(n_all: int, n_pairs: int) -> dict[str, tuple[int, ...]]:
    groups = (2, n_pairs)
    of_symbols = {
        **dict.fromkeys(("switch_rate", "switch_rate_errors", "mean_dwell", "regularity"), (3,)),
        "n_dwells": (3,),
        "occupancy": (3, 3),
    }
    return {
        "residency/scores": (40, 3),
        **dict.fromkeys(
            [f"residency/{name}" for name in ("times", "errors", "capped", "probabilities")], (40,)
        ),
        "residency/zones": (40,),
        "residency/symbols": (40,),
        "residency/cap": (),
        "residency/limits": (3,),
        "residency/zone_shares": (4,),
        "forks/gammas": (2,),
        "forks/n_states": (3,),
        "forks/norms": (3,),
        **{
            f"forks/{name}{suffix}": (3, 2, 4)
            for name in ("spread", "variance")
            for suffix in ("", "_errors")
        },
        "kick/pairs": (n_pairs, 2),
        "kick/n_switches": (n_pairs,),
        "kick/intact_pair_rates": (n_pairs,),
        "kick/intact_rate": (),
        **dict.fromkeys(
            [f"kick/{name}" for name in ("correlation", "transience", "unit_pair_change")],
            (n_all, n_pairs),
        ),
        **dict.fromkeys(
            [
                f"kick/{name}"
                for name in ("score", "transient_score", "neurons", "activity", "unit_change")
            ],
            (n_all,),
        ),
        "kick/unit_errors": (n_all,),
        "kick/groups": (*groups, 2),
        **dict.fromkeys(
            [
                f"kick/{name}"
                for name in ("group_change", "group_errors", "p_values", "pair_p_values")
            ],
            groups,
        ),
        "kick/group_pair_change": (*groups, n_pairs),
        "kick/control_change": (*groups, 7),
        "kick/control_pair_change": (*groups, 7, n_pairs),
        "resonance/scales": (3,),
        **{
            f"resonance/{kind}/{name}": shape
            for kind in ("emitted", "most_probable")
            for name, shape in of_symbols.items()
        },
    }


UNITS = {
    **dict.fromkeys([f"residency/{name}" for name in ("times", "errors", "cap")], "steps"),
    **dict.fromkeys(["kick/intact_rate", "kick/intact_pair_rates"], "switches/step"),
    **{
        f"resonance/{kind}/{name}": unit
        for kind in ("emitted", "most_probable")
        for name, unit in (
            ("switch_rate", "switches/step"),
            ("switch_rate_errors", "switches/step"),
            ("mean_dwell", "steps"),
        )
    },
}


@pytest.mark.parametrize("of_network", [ONE_LAYER, DEEP], ids=["one layer", "two with biases"])
def test_every_array_is_there_in_its_shape_and_unit(
    tmp_path: Path, of_network: dict[str, Any]
) -> None:
    run = run_of(tmp_path, of_network)
    found = run.dissect()
    n_pairs = len(found["kick/pairs"])
    assert n_pairs >= 2, "some pairs of symbols have kick neurons"
    shapes = shapes_of(N_UNITS * of_network.get("num_layers", 1), n_pairs)
    assert {name: array.shape for name, array in found.items()} == shapes
    with h5py.File(run["mechanism"]) as file:
        assert {name: file[name].attrs["unit"] for name in shapes} == {
            name: UNITS.get(name, "1") for name in shapes
        }
    attributes = read_attributes(run["mechanism"])
    assert attributes["seed"] == 3
    assert attributes["settings"] == run.settings.sections_of("dissect")


def test_the_same_run_twice_is_the_same_file(tmp_path: Path) -> None:
    run = run_of(tmp_path, DEEP)
    run.dissect()
    first = run["mechanism"].read_bytes()
    run.dissect()
    assert run["mechanism"].read_bytes() == first


def test_arrays_fit_together(tmp_path: Path) -> None:
    found = run_of(tmp_path, DEEP).dissect()
    zones, times = found["residency/zones"], found["residency/times"]
    assert (zones[times < 2] == ZONES.index("transition")).all()
    assert (zones[(times >= 2) & (times <= 8)] == ZONES.index("kick")).all()
    assert np.isin(zones[times > 8], [ZONES.index("cluster"), ZONES.index("between")]).all()
    np.testing.assert_allclose(found["residency/zone_shares"], np.bincount(zones, minlength=4) / 40)
    assert found["residency/cap"] == 30
    assert found["residency/limits"].tolist() == [2, 8, 0.8]
    assert found["forks/gammas"].tolist() == [0, 1]
    assert (found["forks/n_states"] <= 10).all()
    some = found["forks/n_states"] > 0
    assert some.any()
    np.testing.assert_allclose(found["forks/spread"][some, 0], 0, atol=1e-5)
    assert (found["forks/spread"][some, 1] > 0.01).all()
    assert np.isnan(found["forks/norms"]).tolist() == (~some).tolist()
    for name, kind in (("score", "correlation"), ("transient_score", "transience")):
        np.testing.assert_allclose(found[f"kick/{name}"], found[f"kick/{kind}"].max(1))
    assert (found["kick/transience"] <= found["kick/correlation"]).all()
    order = found["kick/neurons"]
    assert sorted(order) == list(range(2 * N_UNITS))
    assert (np.diff(found["kick/score"][order]) <= 0).all()
    for kind, name in enumerate(("correlation", "transience")):
        leading = np.argsort(-found[f"kick/{name}"], axis=0)[:2].T
        assert found["kick/groups"][kind].tolist() == leading.tolist()
    numbers = range(len(found["kick/pairs"]))
    of_pairs = found["kick/group_pair_change"][:, numbers, numbers]
    of_controls = np.moveaxis(found["kick/control_pair_change"][:, numbers, :, numbers], 0, 1)
    for name, change, control in (
        ("p_values", found["kick/group_change"], found["kick/control_change"]),
        ("pair_p_values", of_pairs, of_controls),
    ):
        known = np.isfinite(change) & np.isfinite(control).all(-1)
        assert known.any()
        expected = (1 + (control <= change[..., None]).sum(-1)) / 8
        np.testing.assert_allclose(found[f"kick/{name}"][known], expected[known])
    for kind in ("emitted", "most_probable"):
        np.testing.assert_allclose(found[f"resonance/{kind}/occupancy"].sum(1), 1)


def test_silencing_a_unit_that_nothing_hears_changes_nothing(run: Run) -> None:
    run.network.layers[0].weight_recurrent[:, 5] = 0.0
    run.put(run.network)
    found = run.dissect()
    assert found["kick/unit_change"][5] == found["kick/unit_errors"][5] == 0
    assert (found["kick/unit_pair_change"][5] == 0).all()
    assert np.count_nonzero(found["kick/unit_change"]) >= N_UNITS - 2


def test_scores_are_along_the_components_of_the_file(run: Run) -> None:
    """Components are units here: another mean moves their scores by as much, others not."""
    first = run.dissect()["residency/scores"]
    assert (first >= [[-1, -2, -3]]).all(), "units are not negative"
    arrays = read_h5(run["dynamics"])
    arrays["pca/mean"] += np.array([10.0, 20, 0, 7, 0, 0, 0, 0])
    attributes = read_attributes(run["dynamics"])
    write_h5(run["dynamics"], arrays, units=dict.fromkeys(arrays, "1"), attributes=attributes)
    second = run.dissect()["residency/scores"]
    np.testing.assert_allclose(first - second, [[10, 20, 0]] * 40, atol=1e-6)


def test_scores_are_those_of_the_highest_layer(tmp_path: Path) -> None:
    run = run_of(tmp_path, DEEP)
    for weight in run.network.layers[1].parameters():
        weight.zero_()
    run.put(run.network)
    np.testing.assert_allclose(run.dissect()["residency/scores"], [[-1, -2, -3]] * 40)


def test_resonance_of_a_network_without_biases_is_in_its_draws(run: Run) -> None:
    found = run.dissect()
    occupancy = found["resonance/most_probable/occupancy"]
    np.testing.assert_allclose(occupancy, occupancy[:1].repeat(3, 0), atol=0.01)
    rates = found["resonance/emitted/switch_rate"]
    assert (np.diff(rates) < -0.01).all(), "strong noise gives the most probable symbols"


def test_a_network_without_switches_has_no_pairs(run: Run) -> None:
    run.network.readout_weight.zero_()
    run.put(run.network)
    found = run.dissect()
    shapes = shapes_of(N_UNITS, 0)
    assert {name: array.shape for name, array in found.items()} == shapes
    assert not found["kick/score"].any()
    assert found["kick/intact_rate"] == 0
    assert (found["residency/capped"] == 1).all()


def test_a_p_value_counts_the_controls_that_are_as_low() -> None:
    group = torch.tensor([[-0.5, 0.0, -1.0, torch.nan, torch.inf, -0.5, -0.5]])
    lacking = [[torch.nan, 0.1, -0.6], [torch.inf, torch.nan, 0.1]]
    controls = torch.tensor([[[-0.6, -0.5, 0.1]] * 5 + lacking])
    found = share_as_low(group, controls)
    np.testing.assert_allclose(found, [[3 / 4, 3 / 4, 1 / 4, np.nan, np.nan, 2 / 3, 1 / 2]])


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def diverge(run: Run) -> None:
    run.network.layers[0].weight_recurrent.mul_(20.0)
    run.put(run.network)


def other_training() -> RunSettings:
    return RunSettings.model_validate(SETTINGS | {"training": {"lr": 0.5}})


WRONG: dict[str, tuple[Callable[[Run], Any], str]] = {
    "network of another training": (
        lambda run: run.put(run.network, other_training().sections_of("train")),
        "model was trained with other settings",
    ),
    "components of another seed": (
        lambda run: run.put_components(seed=4), "dynamics was made with another seed",
    ),
    "components of other weights": (
        lambda run: run.put_components(evaluation={"weights": "best"}),
        "dynamics was made with another evaluation",
    ),
    "components of other units": (
        lambda run: run.put_components(N_UNITS + 1), "components of 9 units, and the network has 8",
    ),
    "damaged components": (lambda run: halve(run["dynamics"]), "dynamics is damaged"),
    "missing components": (lambda run: run["dynamics"].unlink(), "dynamics does not exist"),
    "damaged model": (lambda run: halve(run["model"]), "model is damaged"),
    "missing model": (lambda run: run["model"].unlink(), "model does not exist"),
    "network that diverges": (diverge, "network's state escapes to infinity"),
    "settings that are none": (lambda run: run["settings"].write_text("{"), "settings: cannot be"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_belong_here_is_refused_in_one_sentence(
    spoil: Callable[[Run], Any], message: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run)
    assert run.status() == 2
    complaint = capsys.readouterr().err
    assert re.search(message, complaint), complaint
    assert complaint.count("\n") == 1
    assert not run["mechanism"].exists()
