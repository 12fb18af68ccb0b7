"""The stage `evaluate`: what it writes, that it does what the settings say, what it refuses."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from strata.artifacts import read_attributes, read_h5
from strata.checkpoints import save_tensors
from strata.hmm_rnn import evaluate, prepare
from strata.hmm_rnn.config import RunSettings
from strata.hmm_rnn.rnn import NoiseDrivenRNN
from strata.stages import run_stage

SETTINGS: dict[str, Any] = {
    "seed": 3,
    "hmm": {"model": "HMMTwo"},
    "data": {"seq_len": 20, "n_losses": 2},
    "network": {"input_size": 4, "hidden_size": 6, "num_layers": 2, "biased": [True, True]},
    "training": {"batch_size": 32},
    "evaluation": {
        "n_sequences": 500, "n_matched": 120, "n_many_to_one": 110, "max_lag": 7, "max_block": 3,
        "n_free_chains": 3, "n_free_steps": 1100,
    },
}  # fmt: skip
NEEDED = ("settings", "hmm", "model")


@dataclass(frozen=True)
class Run:
    """A folder with what the stage reads, made of settings and of a network's weights."""

    folder: Path
    settings: RunSettings = field(default_factory=lambda: RunSettings.model_validate(SETTINGS))

    def prepare(self) -> "Run":
        self["settings"].write_text(self.settings.canonical_json(), encoding="utf-8")
        prepare.main(["--settings", str(self["settings"]), "--hmm", str(self["hmm"])])
        self.put(self.network(1), self.network(2))
        return self

    def network(self, seed: int) -> NoiseDrivenRNN:
        shape = self.settings.network
        return NoiseDrivenRNN(
            input_size=shape.input_size,
            hidden_size=shape.hidden_size,
            num_layers=shape.num_layers,
            output_size=3,
            biased=shape.biased,
            generator=torch.Generator().manual_seed(seed),
        ).requires_grad_(False)

    def put(
        self, last: NoiseDrivenRNN, best: NoiseDrivenRNN, trained_with: str | None = None
    ) -> None:
        content: dict[str, Any] = {"last": last.state_dict(), "best": best.state_dict()}
        content["settings"] = trained_with or self.settings.sections_of("train")
        save_tensors(self["model"], content)

    def evaluate(self) -> dict[str, np.ndarray]:
        evaluate.main(self.arguments())
        return read_h5(self["evaluation"])

    def arguments(self) -> list[str]:
        names = (*NEEDED, "evaluation")
        return [word for name in names for word in (f"--{name}", str(self[name]))]

    def status(self) -> int:
        with pytest.raises(SystemExit) as left:
            run_stage(partial(evaluate.main, self.arguments()))
        assert isinstance(left.value.code, int)
        return left.value.code

    def __getitem__(self, name: str) -> Path:
        return self.folder / name


def changed(**blocks: dict[str, Any]) -> RunSettings:
    """Return the settings with other values in some blocks."""
    merged = {name: {**SETTINGS.get(name, {}), **block} for name, block in blocks.items()}
    return RunSettings.model_validate(SETTINGS | merged)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path).prepare()


PAIRED = {
    "symbols": (500, 20),
    "distances": (120,),
    "distances_many_to_one": (110,),
    "volatility": (500,),
    "frequencies": (500, 3),
    "transitions": (3, 3),
    "occupancy": (3,),
    "pair_moments": (5, 3, 3),
    "entropy": (3,),
    "log_likelihood": (500,),
    "dwell": (2, 20),
    "transition_counts": (2, 2),
    "state_occupancy": (2,),
}
SHAPES: dict[str, tuple[int, ...]] = {
    **{f"{name}/{source}": shape for name, shape in PAIRED.items() for source in ("rnn", "hmm")},
    "volatility/exact": (),
    "frequencies/exact": (3,),
    "transitions/exact": (3, 3),
    "occupancy/exact": (3,),
    "pair_moments/exact": (5, 3, 3),
    "transition_counts/exact": (2, 2),
    "state_occupancy/exact": (2,),
    "lags": (5,),
    **{f"entropy/{name}": (3,) for name in ("lengths", "lower", "upper")},
    **{f"likelihood_test/{name}": () for name in ("z", "ks", "p_value")},
    "losses": (2,),
    "free_run/symbols": (3, 1100),
    "free_run/state_occupancy": (3, 2),
    "free_run/largest_hidden": (),
    "free_run/finite": (),
}
UNITS = {
    "volatility": "changes/sequence",
    "log_likelihood": "nats/step",
    "entropy": "nats/symbol",
    "lags": "steps",
}


def test_every_array_is_there_in_its_shape_and_unit(run: Run) -> None:
    found = run.evaluate()
    assert {name: array.shape for name, array in found.items()} == SHAPES
    with h5py.File(run["evaluation"]) as file:
        units = {name: file[name].attrs["unit"] for name in SHAPES}
    assert units.pop("entropy/lengths") == "symbols"
    assert units == {name: UNITS.get(name.split("/")[0], "1") for name in units}
    assert found["lags"].tolist() == [1, 2, 3, 4, 6]
    attributes = read_attributes(run["evaluation"])
    assert attributes["seed"] == 3
    assert attributes["settings"] == run.settings.sections_of("evaluate")


def test_the_same_run_twice_is_the_same_file(run: Run) -> None:
    run.evaluate()
    first = run["evaluation"].read_bytes()
    run.evaluate()
    assert run["evaluation"].read_bytes() == first


def saying(run: Run, symbol: int) -> NoiseDrivenRNN:
    """Return a network that always emits one symbol."""
    network = run.network(0)
    network.readout_weight.zero_()
    assert network.readout_bias is not None
    network.readout_bias.copy_(100.0 * torch.eye(3)[symbol])
    return network


@pytest.mark.parametrize(("weights", "symbol"), [("last", 0), ("best", 2)])
def test_the_weights_are_those_that_the_settings_ask_for(
    tmp_path: Path, weights: str, symbol: int
) -> None:
    run = Run(tmp_path, changed(evaluation={"weights": weights})).prepare()
    run.put(saying(run, 0), saying(run, 2))
    found = run.evaluate()
    for name in ("symbols/rnn", "free_run/symbols"):
        assert (found[name] == symbol).all()


def test_losses_are_those_of_the_network(run: Run) -> None:
    """One symbol for ever is farther from the model than the model and than independent ones."""
    run.put(saying(run, 0), saying(run, 0))
    found, hmm = run.evaluate(), read_h5(run["hmm"])
    assert found["losses"].min() > hmm["iid"].max() > hmm["floor"].max()


def test_networks_start_as_the_settings_say(tmp_path: Path) -> None:
    """They keep their first state in the first unit, and emit symbol 1 if that is positive."""
    found = {}
    for start in ("zero", "normal"):
        (tmp_path / start).mkdir()
        run = Run(tmp_path / start, changed(network={"start": start, "num_layers": 1})).prepare()
        network = run.network(0)
        for weight in network.parameters():
            weight.zero_()
        network.layers[0].weight_recurrent[0, 0] = 1.0
        network.readout_weight[1, 0] = 1e9
        run.put(network, network)
        found[start] = run.evaluate()
    stays = {start: (arrays["symbols/rnn"] == 1).all(1).mean() for start, arrays in found.items()}
    assert stays == {"zero": 0, "normal": pytest.approx(0.5, abs=0.1)}
    losses = {start: arrays["losses"] for start, arrays in found.items()}
    assert losses["normal"].min() > losses["zero"].max(), "symbol 1 is rare"


WRONG: dict[str, tuple[Callable[[Run], Any], str]] = {
    "network of another training": (
        lambda run: run.put(run.network(1), run.network(1), changed(training={"lr": 0.5})
                            .sections_of("train")),
        "model was trained with other settings",
    ),
    "network of another shape": (
        lambda run: run.put(*[Run(run.folder, changed(network={"num_layers": 1})).network(1)] * 2,
                            run.settings.sections_of("train")),
        "model does not hold the last weights",
    ),
    "model of another seed": (
        lambda run: remade(run, SETTINGS | {"seed": 4}), "hmm was made with another seed",
    ),
    "another hidden Markov model": (
        lambda run: remade(run, SETTINGS | {"hmm": {"model": "HMMSmall"}}),
        "hmm was made with another hmm",
    ),
    "damaged hmm": (lambda run: halve(run["hmm"]), "hmm is damaged"),
    "damaged model": (lambda run: halve(run["model"]), "model is damaged"),
    "missing model": (lambda run: run["model"].unlink(), "model does not exist"),
    "missing hmm": (lambda run: run["hmm"].unlink(), "hmm does not exist"),
    "settings that are none": (lambda run: run["settings"].write_text("{"), "settings: cannot be"),
}  # fmt: skip


def remade(run: Run, settings: dict[str, Any]) -> None:
    """Put the model of other settings in the place of the run's own."""
    other = run.folder / "other"
    other.mkdir()
    made = Run(other, RunSettings.model_validate(settings)).prepare()
    made["hmm"].replace(run["hmm"])


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(("spoil", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_belong_here_is_refused_in_one_sentence(
    spoil: Callable[[Run], Any], message: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run)
    assert run.status() == 2
    complaint = capsys.readouterr().err
    assert re.search(message, complaint), complaint
    assert complaint.count("\n") == 1
    assert not run["evaluation"].exists()
