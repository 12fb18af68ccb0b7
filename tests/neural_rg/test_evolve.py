"""Hamiltonian Monte Carlo as a stage: shapes, exact moments in both spaces, bad input."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from strata.artifacts import read_attributes, read_h5
from strata.neural_rg.config import HamiltonianSettings, RunSettings
from strata.neural_rg.evolve import evolve
from strata.neural_rg.flow_settings import MeraSettings, RealNVPSettings
from strata.neural_rg.flows import (
    GaussianFlow,
    PatchNetwork,
    Symmetrized,
    build_flow,
    normal_log_density,
)
from strata.neural_rg.hamiltonian import latent_density
from strata.neural_rg.solve import solve
from strata.neural_rg.target_settings import IsingSettings, TargetSettings, TwoGaussiansSettings
from strata.neural_rg.targets import build_target
from strata.randomness import Generators

NewRun = Callable[..., Any]
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("target", "flow"),
    [
        (IsingSettings(L=2, T=3.0), MeraSettings(n_layers=2, hidden_scale=3, hidden_shift=3)),
        (TwoGaussiansSettings(offset=0.8), RealNVPSettings(n_layers=2)),
        pytest.param(
            TwoGaussiansSettings(offset=0.8),
            RealNVPSettings(n_layers=2, symmetrize=True),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["ising", "plane", "symmetrized"],
)
def test_both_spaces_have_the_exact_moment(target: TargetSettings, flow: Any) -> None:
    """The flow is far from trained: the moment in latent space must not depend on it."""
    settings = RunSettings(target=target, flow=flow)
    network = build_flow(settings, Generators(0, CPU).on_cpu("init")).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(1))
    hmc = HamiltonianSettings(n_chains=128, n_therm=60, n_steps=150, n_leapfrog=5)
    arrays = evolve(
        network,
        build_target(target, dtype=torch.float64, device=CPU),
        hmc,
        Generators(3, CPU),
    )
    exact = solve(target)[0][target.observable]
    for space in ("latent", "physical"):
        means = arrays[f"{space}/observable"][hmc.n_therm :].mean(axis=0)
        error = means.std(ddof=1) / np.sqrt(hmc.n_chains)
        assert abs(means.mean() - exact) < 4 * error, space
        assert error < 0.05 * exact, space
        assert 0.6 < arrays[f"{space}/accepted"].mean() < 0.95


def test_stage_writes_both_spaces_with_units_and_an_origin(trained: Any, tmp_path: Any) -> None:
    trained.run("evolve", hmc=tmp_path / "hmc.h5")
    arrays = read_h5(tmp_path / "hmc.h5")
    hmc = trained.settings.hmc
    assert set(arrays) == {
        f"{space}/{name}"
        for space in ("latent", "physical")
        for name in ("accepted", "observable", "step_size", "gradients")
    }
    for space in ("latent", "physical"):
        assert arrays[f"{space}/accepted"].shape == (hmc.n_steps, hmc.n_chains)
        assert arrays[f"{space}/observable"].shape == (hmc.n_therm + hmc.n_steps, hmc.n_chains)
        assert arrays[f"{space}/gradients"] == 1 + hmc.n_leapfrog * (hmc.n_therm + hmc.n_steps)
    attributes = read_attributes(tmp_path / "hmc.h5")
    assert attributes["settings"] == trained.settings.sections_of("evolve")


def test_one_seed_is_one_file(trained: Any, tmp_path: Any) -> None:
    first, second = tmp_path / "a.h5", tmp_path / "b.h5"
    for path in (first, second):
        trained.run("evolve", hmc=path)
    again = read_h5(second)
    for name, array in read_h5(first).items():
        np.testing.assert_array_equal(array, again[name])


def test_a_model_of_other_settings_is_refused(
    trained: Any, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    other = new_run(seed=7)
    assert other.status("evolve", model=trained.path("model")) == 2
    assert "trained with other settings" in capsys.readouterr().err
    assert not other.path("hmc").exists()


def test_latent_space_of_a_perfect_symmetrized_flow_is_that_of_independent_normals() -> None:
    """Two Gaussians at +-offset are the even part of one, which a shift of the latents gives."""
    target = build_target(TwoGaussiansSettings(), dtype=torch.float64, device=CPU)

    class Shift(PatchNetwork):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.shape = (2,)

        def generate(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return 0.5 * z + z.new_tensor([2.0, 0.0]), z.new_full((len(z),), 2 * math.log(0.5))

        def infer(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return (x - x.new_tensor([2.0, 0.0])) / 0.5, x.new_full((len(x),), -2 * math.log(0.5))

    flow = Symmetrized(GaussianFlow(Shift()))
    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    log_density, score = latent_density(flow, target)(z)
    differences = log_density - normal_log_density(z)
    torch.testing.assert_close(differences, differences[:1].expand(50), rtol=0, atol=1e-10)
    torch.testing.assert_close(score, -z, rtol=0, atol=1e-10)
