"""Models and networks of the tests of hmm_rnn."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from strata.hmm_rnn.config import RunSettings
from strata.hmm_rnn.hmm import HiddenMarkovModel, build_hmm
from strata.hmm_rnn.hmm_settings import HMMSettings
from strata.hmm_rnn.rnn import NoiseDrivenRNN
from strata.stages import run_stage

Matrix = Sequence[Sequence[float]]
FILES = {  # argument of a stage -> file in the run's folder
    "settings": "settings.json",
    "hmm": "hmm.h5",
    "history": "history.h5",
    "model": "model.pt",
}
ARGUMENTS = {  # stage -> its inputs, outputs last
    "prepare": ("settings", "hmm"),
    "train": ("settings", "hmm", "history", "model"),
}
MINIATURE: dict[str, dict[str, Any]] = {
    "hmm": {"model": "HMMThree"},
    "data": {"seq_len": 6, "num_seq": 240, "n_losses": 3},
    "network": {"input_size": 4, "hidden_size": 8},
    "training": {
        "steps": 12,
        "batch_size": 32,
        "lr": 1e-2,
        "evaluate_every": 3,
        "checkpoint_every": 6,
        "moments": {"weight": 5.0, "word_length": 2, "lags": [1, 2, 4]},
        "activity_weight": 0.1,
    },
}


def by_hand(
    weight_input: Matrix,
    weight_recurrent: Matrix,
    readout: Matrix,
    *,
    bias: Sequence[float] | None = None,
    readout_bias: Sequence[float] | None = None,
) -> NoiseDrivenRNN:
    """Return a network of one layer with these weights, in double precision."""
    network = NoiseDrivenRNN(
        input_size=len(weight_input[0]),
        hidden_size=len(weight_recurrent),
        output_size=len(readout),
        biased=(bias is not None, readout_bias is not None),
        generator=torch.Generator().manual_seed(0),
    )
    weights = {
        "layers.0.weight_input": weight_input,
        "layers.0.weight_recurrent": weight_recurrent,
        "layers.0.bias": bias,
        "readout_weight": readout,
        "readout_bias": readout_bias,
    }
    network.load_state_dict(
        {name: torch.tensor(values) for name, values in weights.items() if values is not None}
    )
    return network.double().requires_grad_(False)


@pytest.fixture
def network_of() -> Callable[..., NoiseDrivenRNN]:
    """Return the function `by_hand`."""
    return by_hand


@pytest.fixture
def named_hmm() -> Callable[[str], HiddenMarkovModel]:
    """Return a function: the name of a model -> the model."""
    return lambda name: build_hmm(HMMSettings(model=name))


@pytest.fixture
def uneven_hmm() -> HiddenMarkovModel:
    """A model of 2 states and 3 symbols without symmetries that starts far from stationary."""
    laws = [[0.9, 0.1], [[0.8, 0.2], [0.05, 0.95]], [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]]
    return HiddenMarkovModel(*(torch.tensor(law, dtype=torch.float64) for law in laws))


def build_stuck_network() -> NoiseDrivenRNN:
    """Return a network that fails, and that distances of matched sequences do not show.

    Its two units inhibit each other. The sign of the first noise lets one of them win, the first
    more often; the winner grows tenfold per step and shuts the other off. So nearly every sequence
    of HMMTwo's outer symbols 0 and 2 has one symbol throughout, and the rare symbol 1 never occurs.
    After some 38 steps activity is no longer finite in float32; the symbols stay.
    """
    network = NoiseDrivenRNN(
        input_size=1,
        hidden_size=2,
        output_size=3,
        biased=(True, True),
        generator=torch.Generator().manual_seed(0),
    )
    weights = {
        "layers.0.weight_input": [[1.0], [-1.0]],
        "layers.0.weight_recurrent": [[10.0, -30.0], [-30.0, 10.0]],
        "layers.0.bias": [0.3, -0.3],
        "readout_weight": [[5.0, -5.0], [-5.0, -5.0], [-5.0, 5.0]],
        "readout_bias": [0.0, -40.0, 0.0],
    }
    network.load_state_dict({name: torch.tensor(values) for name, values in weights.items()})
    return network.requires_grad_(False)


@pytest.fixture
def stuck_network() -> NoiseDrivenRNN:
    """The network of `build_stuck_network`."""
    return build_stuck_network()


@dataclass(frozen=True)
class RunFolder:
    """The folder of one miniature run; its files go by the names of the stages' arguments."""

    folder: Path

    def path(self, argument: str) -> Path:
        return self.folder / FILES[argument]

    @property
    def settings(self) -> RunSettings:
        return RunSettings.model_validate_json(self.path("settings").read_text())

    def arguments(self, stage: str, **elsewhere: Path) -> list[str]:
        """The stage's command line; `elsewhere` names files outside the folder."""
        paths = {name: elsewhere.get(name, self.path(name)) for name in ARGUMENTS[stage]}
        line = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
        return [*line, "--device", "cpu"]

    def run(self, *stages: str, **elsewhere: Path) -> None:
        """Run stages one after the other in this process."""
        for stage in stages:
            self._main(stage)(self.arguments(stage, **elsewhere))

    def status(self, stage: str, **elsewhere: Path) -> int:
        """Run a stage in this process and return the exit status that its process would have."""
        with pytest.raises(SystemExit) as left:
            run_stage(partial(self._main(stage), self.arguments(stage, **elsewhere)))
        assert isinstance(left.value.code, int)
        return left.value.code

    def names(self) -> set[str]:
        """What stands in the folder, without the lock and the settings."""
        hidden = {".checkpoint.pt.lock", FILES["settings"]}
        return {path.name for path in self.folder.iterdir()} - hidden

    @staticmethod
    def _main(stage: str) -> Callable[[list[str]], None]:
        main: Callable[[list[str]], None] = importlib.import_module(f"strata.hmm_rnn.{stage}").main
        return main


def run_folder(folder: Path, changes: Mapping[str, Any]) -> RunFolder:
    """Make a run's folder that holds miniature settings with the changes."""
    folder.mkdir(parents=True)
    blocks: dict[str, Any] = {"seed": 0, **MINIATURE}
    for key, change in changes.items():
        blocks[key] = {**blocks.get(key, {}), **change} if isinstance(change, dict) else change
    settings = RunSettings.model_validate(blocks).canonical_json()
    (folder / FILES["settings"]).write_text(settings, encoding="utf-8")
    return RunFolder(folder)


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """Return a function: a name, changed blocks of settings -> a folder with settings alone."""
    return lambda name="run", **changes: run_folder(tmp_path / name, changes)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A miniature run that was prepared and trained without being disturbed; for reading only."""
    run = run_folder(tmp_path_factory.mktemp("trained") / "run", {})
    run.run(*ARGUMENTS)
    return run


def refused(capsys: pytest.CaptureFixture[str], run: RunFolder, stage: str, **inputs: Path) -> str:
    """Run a stage, which must end in status 2, one sentence, no new file; return the sentence."""
    capsys.readouterr()
    before = run.names()
    assert run.status(stage, **inputs) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("strata: ")
    assert complaint.count("\n") == 1
    assert run.names() == before
    return complaint


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function: run, stage, inputs elsewhere -> the sentence that refuses them."""
    return partial(refused, capsys)
