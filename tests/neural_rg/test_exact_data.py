"""Exact fields as training data: their moments are the target's, and other files are refused."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from strata.artifacts import read_h5, write_h5
from strata.errors import UserError
from strata.neural_rg.exact import exact_values, kernel_offset
from strata.neural_rg.exact_data import ExactFields, held_out_chains, read_exact_fields
from strata.neural_rg.ising_field import IsingField
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.target_settings import IsingSettings, RingSettings
from strata.neural_rg.targets import build_target

NewRun = Callable[..., Any]
CPU = torch.device("cpu")
CASES = {
    "square": {"L": 4, "T": 2.5},
    "open square": {"L": 3, "T": 2.5, "boundary": "open"},
    "chain": {"L": 6, "d": 1, "T": 1.5},
}
MANY = {"n_chains": 64, "n_therm": 50, "n_sweeps": 250, "every": 1}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def target_of(settings: IsingSettings, dtype: torch.dtype = torch.float64) -> IsingField:
    target = build_target(settings, dtype=dtype, device=CPU)
    assert isinstance(target, IsingField)
    return target


class Spins(IsingField):
    """A field without noise: the spins themselves."""

    def sample_field(self, spins: Tensor, generator: torch.Generator) -> Tensor:
        return spins


def images(spins: np.ndarray, *, shifted: bool) -> list[tuple[int, ...]]:
    """What sign, translations, mirrors and an exchange of the axes make of spins, each as often.

    One by one: site i of an image has the spin of the site that it came from.
    """
    length, found = len(spins), []
    shifts = range(length) if shifted else [0]
    per_axis = [
        [(a + shift) % length for a in order]
        for shift in shifts
        for order in (range(length), range(length)[::-1])
    ]
    for axes in itertools.product(per_axis, repeat=spins.ndim):
        moved = spins
        for axis, sources in enumerate(axes):
            moved = np.take(moved, sources, axis)
        found += [sign * turned for turned in (moved, moved.T) for sign in (1, -1)]
    return [tuple(image.ravel().tolist()) for image in found]


STATES = {
    "chain": [[1, 1, 1, -1], [1, 1, 1, 1], [1, 1, -1, -1]],
    "square": [[[1, 1, 1], [-1, -1, 1], [-1, 1, 1]], [[1, -1, 1], [1, 1, 1], [1, 1, 1]]],
}


@pytest.mark.parametrize("boundary", ["periodic", "open"])
@pytest.mark.parametrize("states", STATES.values(), ids=list(STATES))
def test_spins_are_drawn_uniformly_from_all_their_images(states: Any, boundary: Any) -> None:
    """As often as images by every symmetry, written out; and each has the energy of its origin."""
    spins = np.array(states, dtype=np.int8)
    lattice = Lattice(spins.shape[1], spins.ndim - 1, boundary)
    target = Spins(lattice, 0.5, dtype=torch.float64)
    drawn = ExactFields(target, torch.from_numpy(spins)).draw(30_000, generator())
    assert drawn.dtype == torch.float64
    flat = drawn.flatten(1).numpy()
    counts = Counter(map(tuple, flat.astype(int).tolist()))
    expected: Counter[tuple[int, ...]] = Counter()
    for state in spins:
        listed = images(state, shifted=boundary == "periodic")
        expected.update({image: times / len(listed) for image, times in Counter(listed).items()})
    assert set(counts) == set(expected)
    observed = [counts[image] for image in expected]
    wanted = np.array(list(expected.values())) * len(drawn) / len(spins)
    assert stats.chisquare(observed, wanted).pvalue > 1e-3

    def energies(rows: np.ndarray) -> set[float]:
        return set(((rows @ lattice.adjacency()) * rows).sum(1).tolist())

    assert energies(flat) == energies(spins.reshape(len(spins), -1).astype(float))


def test_each_draw_is_moved_by_itself() -> None:
    lone = torch.ones(1, 8, 8, dtype=torch.int8)
    lone[0, 2, 5] = -1
    target = Spins(Lattice(8), 0.5, dtype=torch.float64)
    drawn = ExactFields(target, lone).draw(500, generator()).flatten(1)
    places = (drawn * drawn.sum(1, keepdim=True).sign()).argmin(1)
    assert len(places.unique()) > 55


def test_fields_of_one_spin_state_are_normal_about_its_images() -> None:
    """Second moments of all N(Kt s, Kt) together are Kt + Kt <s s^T> Kt; the mean is 0."""
    lattice, n = Lattice(2), 40_000
    target = IsingField(lattice, 0.4, dtype=torch.float64)
    spins = torch.tensor([[[1, 1], [-1, 1]]], dtype=torch.int8)
    x = ExactFields(target, spins).draw(n, generator(1)).flatten(1)
    kernel = 0.4 * lattice.adjacency() + kernel_offset(lattice, 0.4) * np.eye(4)
    centers = np.array(images(spins[0].numpy(), shifted=True)) @ kernel
    expected = kernel + centers.T @ centers / len(centers)
    products = (x[:, :, None] * x[:, None, :]).numpy()
    errors = products.std(axis=0) / math.sqrt(n)
    assert (np.abs(products.mean(axis=0) - expected) < 4.5 * errors).all()
    assert (x.mean(0).abs() < 4.5 * x.std(0) / math.sqrt(n)).all()


@pytest.mark.parametrize("target", CASES.values(), ids=list(CASES))
def test_what_the_stage_wrote_has_the_exact_moments(
    target: dict[str, Any], new_run: NewRun
) -> None:
    """<m^2>, and by parts <x . grad ln pi~> = -N; errors from the spread over spin states."""
    run = new_run(target={"name": "ising", **target}, flow={"name": "realnvp"}, data=MANY)
    settings = run.settings.target
    density = target_of(settings)
    exact, held_out = read_exact_fields(run.generate(), settings, density)
    assert (len(exact.spins), len(held_out.spins)) == (56 * 250, 8 * 250)
    n = 20_000
    x = exact.draw(n, generator(2))
    n_sites = density.lattice.n_sites
    moment = exact_values(density.lattice, settings.coupling).magnetization_squared
    for values, expected, precision in (
        (density.observable(x), moment, 0.02),
        ((x * density.score(x)).flatten(1).sum(1), -n_sites, 0.02),
        (density.order_parameter(x), 0.0, 0.02),
    ):
        # The spins are a sample themselves, and correlated: half as much again is for them.
        error = 1.5 * values.std().item() / math.sqrt(n)
        assert error < precision * (abs(expected) or 1.0)
        assert abs(values.mean().item() - expected) < 4 * error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fields_follow_the_targets_dtype_and_the_generator(dtype: torch.dtype) -> None:
    target = target_of(IsingSettings(L=4), dtype)
    spins = (2 * torch.randint(2, (20, 4, 4), generator=generator()) - 1).to(torch.int8)
    exact, source = ExactFields(target, spins), generator(3)
    first, second = exact.draw(7, source), exact.draw(7, source)
    assert first.shape == (7, 4, 4)
    assert first.dtype == dtype
    assert torch.equal(exact.draw(7, generator(3)), first)
    assert not torch.isclose(first, second).all()
    assert first.unique().numel() == first.numel(), "each field has noise of its own"


def test_samples_of_the_same_distribution_are_taken_by_either_temperature(new_run: NewRun) -> None:
    run = new_run(target={"L": 4, "K": 0.4})
    settings = IsingSettings(L=4, T=2.5)
    path = run.generate()
    exact, _ = read_exact_fields(path, settings, target_of(settings))
    assert exact.spins.dtype == torch.int8
    assert set(exact.spins.unique().tolist()) == {-1, 1}


@pytest.mark.parametrize(("n_chains", "n_held_out"), [(2, 1), (8, 1), (15, 1), (16, 2), (64, 8)])
def test_the_last_eighth_of_the_chains_is_held_out(
    n_chains: int, n_held_out: int, new_run: NewRun
) -> None:
    run = new_run(target={"L": 4}, data={"n_chains": n_chains, "n_sweeps": 130, "every": 2})
    path = run.generate()
    training, held_out = read_exact_fields(path, run.settings.target, target_of(IsingSettings(L=4)))
    spins = torch.from_numpy(read_h5(path)["spins"])
    is_held_out = torch.arange(len(spins)) % n_chains >= n_chains - n_held_out
    assert torch.equal(held_out.spins, spins[is_held_out])
    assert torch.equal(training.spins, spins[~is_held_out])
    assert held_out_chains(n_chains) == n_held_out


@pytest.mark.parametrize("other", [
    {"L": 4, "T": 2.0}, {"L": 4, "T": 2.5, "boundary": "open"}, {"L": 8, "T": 2.5},
    {"L": 4, "T": 2.5, "d": 1},
])  # fmt: skip
def test_samples_of_another_distribution_are_refused(
    other: dict[str, Any], new_run: NewRun
) -> None:
    path = new_run(target={"L": 4, "T": 2.5}).generate()
    settings = IsingSettings(**other)
    with pytest.raises(UserError) as refusal:
        read_exact_fields(path, settings, target_of(settings))
    sentence = str(refusal.value)
    assert sentence.startswith(f"{path} holds samples of ")
    assert IsingSettings(L=4, T=2.5).solve_argument in sentence
    assert settings.solve_argument in sentence
    assert "\n" not in sentence


def test_another_target_has_no_exact_samples(tmp_path: Path) -> None:
    """Even if a file says so."""
    settings, path = RingSettings(), tmp_path / "samples.h5"
    write_h5(path, {}, units={}, attributes={"target": settings.solve_argument})
    target = build_target(settings, dtype=torch.float64, device=CPU)
    with pytest.raises(UserError, match="exact samples are of the ising target; got ring2d"):
        read_exact_fields(path, settings, target)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    settings = IsingSettings(L=4)
    target, path = target_of(settings), tmp_path / "samples.h5"

    def refusal() -> str:
        with pytest.raises(UserError) as error:
            read_exact_fields(path, settings, target)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "does not exist" in refusal()
    path.write_text("spins\n")
    assert "not an HDF5 file" in refusal()
    write_h5(path, {"fields": np.zeros((2, 4, 4))}, units={"fields": "1"}, attributes={})
    assert "holds" in refusal()
    write_h5(path, {}, units={}, attributes={"target": settings.solve_argument})
    assert "holds no spins" in refusal()
