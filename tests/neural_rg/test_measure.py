"""Mutual information as a stage: which variables, what a perfect flow would show, bad input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from strata.artifacts import read_attributes, read_h5, write_h5
from strata.neural_rg import measure as stage
from strata.neural_rg.config import RunSettings
from strata.neural_rg.flow_settings import MeraSettings
from strata.neural_rg.flows import Symmetrized, build_flow, gaussian_part
from strata.neural_rg.measure import measure
from strata.neural_rg.target_settings import IsingSettings
from strata.neural_rg.targets import build_target
from strata.randomness import Generators

NewRun = Callable[..., Any]


def small_flow(length: int) -> Any:
    settings = RunSettings(
        target=IsingSettings(L=length),
        flow=MeraSettings(n_layers=2, hidden_scale=4, hidden_shift=4),
    )
    flow = build_flow(settings, Generators(0, torch.device("cpu")).on_cpu("init"))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(2))
    return gaussian_part(flow)


def test_latents_of_the_flows_own_samples_are_independent_and_its_fields_are_not() -> None:
    flow = small_flow(4)
    with torch.no_grad():
        x, _ = flow.sample(4096, torch.Generator().manual_seed(5))
    arrays = measure(flow, x.numpy(), signs())
    pairs = np.triu_indices(16, 1)
    noise = arrays["noise_level"]
    assert arrays["latent"][pairs].max() < 1.5 * noise
    assert arrays["physical"][pairs].max() > 5 * noise


def test_latents_of_a_symmetrized_flows_own_samples_are_independent_too() -> None:
    flow = Symmetrized(small_flow(4))
    with torch.no_grad():
        for block in flow.flow.network.blocks:
            block.shift_bias_out += 0.5  # far from even: fields of both signs differ
        x, _ = flow.sample(4096, torch.Generator().manual_seed(5))
    arrays = measure(flow, x.numpy(), signs())
    pairs = np.triu_indices(16, 1)
    assert arrays["latent"][pairs].max() < 1.5 * arrays["noise_level"]
    blind = measure(flow.flow, x.numpy(), signs())
    assert blind["latent"][pairs].max() > 5 * arrays["noise_level"]


def signs() -> torch.Generator:
    return torch.Generator().manual_seed(9)


def test_only_a_window_of_a_large_lattice_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MAX_LENGTH", 2)
    fields = torch.randn(256, 4, 4, generator=torch.Generator().manual_seed(1)).numpy()
    fields[:, 1, 1] = fields[:, 0, 0]  # sites 0 and 3 of the window
    arrays = measure(small_flow(4), fields, signs())
    np.testing.assert_array_equal(arrays["coordinates"], [[0, 0], [0, 1], [1, 0], [1, 1]])
    information = arrays["physical"]
    assert np.nanargmax(information) == 3
    assert information[0, 3] > 5 * information[0, 1]


def test_stage_says_which_site_and_scale_a_row_belongs_to(trained: Any, tmp_path: Path) -> None:
    data, out = tmp_path / "ising_samples.h5", tmp_path / "information.h5"
    trained.run("generate", samples=data)
    trained.run("measure", data=data, information=out)
    arrays = read_h5(out)
    assert arrays["physical"].shape == arrays["latent"].shape == (16, 16)
    assert np.isnan(np.diag(arrays["latent"])).all()
    written_out = [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(arrays["latent_scales"].reshape(4, 4), written_out)
    assert read_attributes(out)["settings"] == trained.settings.sections_of("measure")


@pytest.mark.parametrize("data", ["replay", "exact"])
def test_exact_samples_are_weighed_those_alone_that_were_not_learnt(
    data: str, new_run: NewRun
) -> None:
    run = new_run(training={"data": data}, data={"n_chains": 16, "n_sweeps": 8, "every": 1})
    path = run.generate()
    run.run("train", data=path)
    run.run("measure")
    found = read_h5(run.path("information"))["exact_log_weight"]
    fields = torch.from_numpy(read_h5(path)["fields"])
    flow = build_flow(run.settings, Generators(0, torch.device("cpu")).on_cpu("init"))
    flow.load_state_dict(torch.load(run.path("model"), weights_only=True)["best"])
    target = build_target(run.settings.target, dtype=torch.float32, device=torch.device("cpu"))
    with torch.no_grad():
        log_weight = (target.log_density(fields) - flow.log_prob(fields)).numpy().reshape(8, 16)
    expected = log_weight if data == "replay" else log_weight[:, 14:]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_samples_of_another_temperature_are_refused(
    trained: Any, new_run: NewRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warm = new_run("warm", target={"T": 3.0})
    warm.run("generate", samples=warm.path("data"))
    out = tmp_path / "information.h5"
    assert trained.status("measure", data=warm.path("data"), information=out) == 2
    assert "holds samples of" in capsys.readouterr().err
    assert not out.exists()


def test_a_file_without_fields_is_refused(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.h5"
    origin = {"target": trained.settings.target.solve_argument}
    write_h5(other, {"spins": np.ones(3)}, units={"spins": "1"}, attributes=origin)
    assert trained.status("measure", data=other, information=tmp_path / "x.h5") == 2
    assert "holds no fields" in capsys.readouterr().err
