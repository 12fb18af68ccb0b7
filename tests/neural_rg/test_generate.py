"""The stage that draws exact samples: identities that only samples of the target obey, and files.

Exact fields x follow pi = pi~ / Z_x in N dimensions, so that E[x . grad ln pi~(x)] = -N (by parts),
and E[N(x; 0, Kt) / pi~(x)] = 1 / Z_x, where the ratio is a constant times prod_i 1 / cosh(x_i).
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from strata.artifacts import read_h5
from strata.neural_rg.cluster import energy_per_site, magnetization_squared
from strata.neural_rg.config import DataSettings, RunSettings
from strata.neural_rg.estimates import chain_mean
from strata.neural_rg.exact import (
    exact_values,
    kernel_offset,
    log_partition_field,
)
from strata.neural_rg.flow_settings import RealNVPSettings, TebdSettings
from strata.neural_rg.generate import UNITS, generate, main
from strata.neural_rg.ising_field import IsingField
from strata.neural_rg.target_settings import (
    IsingSettings,
    RingSettings,
    ScalarFieldSettings,
    TargetSettings,
)
from strata.neural_rg.targets import build_target
from strata.stages import run_stage

PerSample = Callable[[IsingField, torch.Tensor], torch.Tensor]
TARGETS = {
    "L4": IsingSettings(L=4),
    "L8": IsingSettings(L=8, T=2.5),
    "L4 open": IsingSettings(L=4, boundary="open"),
    "ring": IsingSettings(L=12, d=1, T=1.0),
    "pairs": IsingSettings(L=2, T=2.5),
}
DATA = DataSettings(n_chains=32, n_therm=2, n_sweeps=9, every=4)
MINIATURE = RunSettings(seed=3, target=IsingSettings(L=4, T=2.5), data=DATA)


def target_of(settings: IsingSettings) -> IsingField:
    target = build_target(settings, dtype=torch.float64, device=torch.device("cpu"))
    assert isinstance(target, IsingField)
    return target


def assert_mean(of: PerSample, exact: float, settings: IsingSettings, precision: float) -> None:
    """Over exact fields, the mean of what `of` gives is the exact one."""
    target, data = target_of(settings), DataSettings(n_therm=50, n_sweeps=300, every=1)
    fields = torch.from_numpy(generate(settings, data, seed=1)["fields"]).double()
    mean, error = chain_mean(of(target, fields).reshape(300, 64).numpy())
    assert error < precision * abs(exact)
    assert abs(mean - exact) < 4 * error


@pytest.mark.parametrize("settings", TARGETS.values(), ids=list(TARGETS))
def test_squared_magnetization_of_the_fields_is_exact(settings: IsingSettings) -> None:
    exact = exact_values(target_of(settings).lattice, settings.coupling).magnetization_squared
    assert_mean(IsingField.observable, exact, settings, precision=0.02)


@pytest.mark.parametrize("settings", TARGETS.values(), ids=list(TARGETS))
def test_fields_obey_the_virial_theorem(settings: IsingSettings) -> None:
    def virial(target: IsingField, x: torch.Tensor) -> torch.Tensor:
        return (x * target.score(x)).flatten(1).sum(1)

    n_sites = target_of(settings).lattice.n_sites
    assert_mean(virial, -n_sites, settings, precision=0.02)


@pytest.mark.parametrize(
    "settings", [IsingSettings(L=2, T=2.5), IsingSettings(L=6, d=1, T=2.0)], ids=str
)
def test_importance_ratios_of_a_normal_law_average_to_one_over_the_partition_function(
    settings: IsingSettings,
) -> None:
    lattice, coupling = target_of(settings).lattice, settings.coupling
    kernel = coupling * lattice.adjacency()
    kernel = kernel + kernel_offset(lattice, coupling) * np.eye(lattice.n_sites)
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(lattice.n_sites, dtype=torch.float64), torch.from_numpy(kernel)
    )

    def ratio(target: IsingField, x: torch.Tensor) -> torch.Tensor:
        return torch.exp(normal.log_prob(x.flatten(1)) - target.log_density(x))

    assert_mean(ratio, math.exp(-log_partition_field(lattice, coupling)), settings, precision=0.05)


def test_fields_and_spins_belong_together() -> None:
    """x - Kt s is normal noise of covariance Kt, so that its mean square is the trace over N."""
    settings = TARGETS["L8"]
    target, data = target_of(settings), DataSettings(n_therm=20, n_sweeps=100, every=1)
    drawn = generate(settings, data, seed=2)
    spins, fields = (torch.from_numpy(drawn[name]).double() for name in ("spins", "fields"))
    noise = fields - target.modes.filter(spins, target.kernel)
    variance = noise.square().flatten(1).mean(1)
    expected = kernel_offset(target.lattice, settings.coupling)
    error = variance.std().item() / math.sqrt(len(variance))
    assert abs(variance.mean().item() - expected) < 4 * error
    assert error < 0.01 * expected


def test_arrays_fit_together() -> None:
    settings = TARGETS["L4"]
    data = DataSettings(n_chains=5, n_therm=3, n_sweeps=11, every=4)
    drawn = generate(settings, data, seed=4)
    found = {name: (array.shape, array.dtype.name) for name, array in drawn.items()}
    assert found == {
        "spins": ((10, 4, 4), "int8"),
        "fields": ((10, 4, 4), "float32"),
        "energy_per_site": ((11, 5), "float64"),
        "magnetization_squared": ((11, 5), "float64"),
    }
    flat, bonds = drawn["spins"].reshape(10, 16), target_of(settings).lattice.bonds()
    for name, of_spins in (
        ("energy_per_site", energy_per_site(flat, bonds)),
        ("magnetization_squared", magnetization_squared(flat)),
    ):
        np.testing.assert_array_equal(of_spins.reshape(2, 5), drawn[name][[3, 7]])


def test_equal_seeds_give_equal_samples_and_others_do_not() -> None:
    settings, data = TARGETS["L4"], DataSettings(n_chains=4, n_therm=1, n_sweeps=3, every=1)
    first, again, other = (generate(settings, data, seed) for seed in (5, 5, 6))
    for name in UNITS:
        assert first[name].tobytes() == again[name].tobytes()
        assert first[name].tobytes() != other[name].tobytes()


def test_the_stage_writes_samples_with_units_and_an_origin(tmp_path: Path) -> None:
    text = MINIATURE.sections_of("generate")
    samples = run_in(tmp_path, text)
    with h5py.File(samples) as file:
        attributes = dict(file.attrs)
        assert {name: file[name].attrs["unit"] for name in file} == UNITS
    assert attributes["settings"] == text
    assert {"seed", "target", "data"} <= json.loads(text).keys()
    assert attributes["target"] == IsingSettings(L=4, K=0.4).solve_argument
    assert attributes["seed"] == 3
    assert attributes["device"] == "cpu"
    expected = generate(IsingSettings(L=4, T=2.5), DATA, seed=3)
    for name, array in read_h5(samples).items():
        np.testing.assert_array_equal(array, expected[name])


def test_lattices_that_the_default_network_cannot_carry_are_drawn_too(tmp_path: Path) -> None:
    settings = RunSettings(target=IsingSettings(L=6), flow=TebdSettings(), data=DATA)
    samples = run_in(tmp_path, settings.sections_of("generate"))
    assert read_h5(samples)["spins"].shape == (64, 6, 6)


def refusal(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the stage, which must leave with status 2, one sentence and no file; return it."""
    with pytest.raises(SystemExit) as left:
        run_stage(lambda: run_in(folder, text))
    assert left.value.code == 2
    assert not (folder / "samples.h5").exists()
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    return complaint


def test_settings_of_another_stage_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = json.loads(MINIATURE.sections_of("generate"))
    del lacking["data"]
    complaint = refusal(tmp_path, json.dumps(lacking), capsys)
    assert "the stage generate reads data" in complaint


@pytest.mark.parametrize("target", [ScalarFieldSettings(), RingSettings()], ids=["phi4", "ring2d"])
def test_only_the_ising_field_can_be_drawn_exactly(
    target: TargetSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = RunSettings(target=target, flow=RealNVPSettings(), data=DATA)
    complaint = refusal(tmp_path, settings.canonical_json(), capsys)
    assert f"exact samples can be drawn of the ising target; got {target.name}" in complaint


def run_in(folder: Path, settings: str) -> Path:
    paths = {"settings": folder / "settings.json", "samples": folder / "samples.h5"}
    paths["settings"].write_text(settings)
    main([text for name, path in paths.items() for text in (f"--{name}", str(path))])
    return paths["samples"]
