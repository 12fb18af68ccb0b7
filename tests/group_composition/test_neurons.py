"""Energies, phases, blocks and orders of neurons against definitions and exact solutions.

Projections are made from characters, responses to translates from the multiplication table.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from strata.artifacts import write_h5
from strata.errors import UserError
from strata.group_composition import neurons
from strata.group_composition.exact_solutions import Model, exact_weights, width_of
from strata.group_composition.group_settings import (
    Cyclic,
    Dicyclic,
    Dihedral,
    GroupSettings,
    Product,
    Symmetric,
)
from strata.group_composition.groups import FiniteGroup, build_group
from strata.group_composition.irreps import Irrep, irreducible_representations
from strata.group_composition.linter import Expectation
from strata.group_composition.neurons import Parts
from strata.group_composition.predict import task_arrays
from strata.group_composition.theory import components, drops

C10, C11, C5XC5 = Cyclic(n=10), Cyclic(n=11), Product(orders=(5, 5))
C2XC3XC4, D5, Q8, S4 = Product(orders=(2, 3, 4)), Dihedral(n=5), Dicyclic(n=2), Symmetric(n=4)
CYCLIC = (C10, C11, C5XC5, C2XC3XC4)
GROUPS = (*CYCLIC, D5, Q8, S4)
COUNT = np.arange(10)
TWO_WAVES = 2 * np.cos(0.6 * np.pi * COUNT + 0.7) + np.cos(0.2 * np.pi * COUNT)


@dataclass(frozen=True)
class World:
    """A group with its template, and what is read of them from the file of the task."""

    group: FiniteGroup
    irreps: tuple[Irrep, ...]
    template: np.ndarray
    parts: Parts

    def weights(self, model: Model, k: int) -> dict[str, np.ndarray]:
        return exact_weights(self.group, self.irreps, self.template, model, k)


def write_task(path: Path, which: GroupSettings, template: np.ndarray, **attributes: Any) -> None:
    group = build_group(which)
    irreps = irreducible_representations(group)
    staircase = drops(components(irreps, template, 2), group.order, 2)
    expected = Expectation(staircase, [math.nan] * len(staircase), irreps, template)
    arrays, units = task_arrays(group, expected)
    write_h5(path, arrays, units=units, attributes=attributes)


def noise(settings: GroupSettings) -> np.ndarray:
    template = np.random.default_rng(9).normal(size=settings.order)
    return template - template.mean()


def world_with(settings: GroupSettings, template: np.ndarray) -> World:
    with TemporaryDirectory() as folder:
        write_task(Path(folder) / "task.h5", settings, template)
        parts = neurons.read_parts(Path(folder) / "task.h5")
    group = build_group(settings)
    return World(group, irreducible_representations(group), template, parts)


@cache
def world_of(settings: GroupSettings) -> World:
    return world_with(settings, noise(settings))


def name_of(settings: GroupSettings) -> str:
    return build_group(settings).name


def readout_norms(W_out: np.ndarray) -> np.ndarray:
    return np.linalg.norm(W_out, axis=0)


def owners_of(W_out: np.ndarray, parts: Parts) -> np.ndarray:
    return neurons.owners(neurons.energies(W_out.T, parts), readout_norms(W_out), parts)


# --- energies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", GROUPS, ids=name_of)
def test_energies_are_those_of_projections_by_characters(group: GroupSettings) -> None:
    world = world_of(group)
    functions = np.random.default_rng(0).normal(size=(2, 5, world.group.order))
    quotients = world.group.table[:, world.group.inverses]  # h g^-1 by h, g
    norms = []
    for irrep in world.irreps:
        share = irrep.dimension / (irrep.degree * world.group.order)
        projected = functions @ (share * irrep.character[quotients]).T
        norms.append((projected**2).sum(-1) / (functions**2).sum(-1))
    found = neurons.energies(functions, world.parts)
    np.testing.assert_allclose(found, np.stack(norms, axis=-1), atol=1e-12)
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-12)


def test_a_zero_function_has_no_energy_and_single_precision_is_enough() -> None:
    parts = world_of(C10).parts
    zero = neurons.energies(np.zeros((3, 10), np.float32), parts)
    assert zero.dtype == np.float64
    assert (zero == 0).all()


@pytest.mark.parametrize("group", GROUPS, ids=name_of)
@pytest.mark.parametrize("model", ["TwoLayerNet", "QuadraticRNN"])
def test_neurons_of_exact_solutions_have_one_irrep_each_and_the_right_numbers(
    group: GroupSettings, model: Model
) -> None:
    world = world_of(group)
    weights = world.weights(model, 2)
    owners = owners_of(weights["W_out"], world.parts)
    n_neurons, n_elements = weights["W_out"].T.shape
    inputs = weights["W_in"].reshape(-1, n_neurons, n_elements)
    for functions in (weights["W_out"].T, *inputs):
        purest = neurons.energies(functions, world.parts)
        np.testing.assert_allclose(purest[np.arange(len(owners)), owners], 1.0, atol=1e-10)
    for number, irrep in enumerate(world.irreps):
        expected = width_of(irrep, model, 2) if world.parts.has_power[number] else 0
        assert (owners == number).sum() == expected


def test_a_planted_neuron_is_found_among_noise() -> None:
    world = world_of(C5XC5)
    random = np.random.default_rng(1)
    W_out = 1e-2 * random.normal(size=(25, 30))
    for irrep in (3, 7):
        matrices = world.irreps[irrep].matrices
        W_out[:, irrep] += np.einsum("gab,ab->g", matrices, random.normal(size=(2, 2)))
    shares = neurons.energies(W_out.T, world.parts)
    assert (owners_of(W_out, world.parts)[[3, 7]] == [3, 7]).all()
    assert (shares.max(-1) > 0.9).nonzero()[0].tolist() == [3, 7]


def test_only_representations_of_the_template_own_neurons() -> None:
    parts = world_with(C10, TWO_WAVES).parts
    assert parts.learned == (3, 1)
    assert parts.has_power.tolist() == [False, True, False, True, False, False]
    shares = np.array([[0.0, 0.1, 0.6, 0.2, 0.1, 0.0], [0.9, 0.05, 0.0, 0.01, 0.04, 0.0]])
    assert neurons.owners(shares, np.ones(2), parts).tolist() == [3, 1]


def test_a_neuron_is_dead_below_a_hundredth_of_the_largest_norm() -> None:
    assert neurons.dead(np.array([2.0, 0.021, 0.019, 0.0])).tolist() == [False, False, True, True]
    assert neurons.dead(np.zeros(2)).all()


# --- phases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", CYCLIC, ids=name_of)
def test_a_phase_is_that_of_the_answer_to_translates(group: GroupSettings) -> None:
    world = world_of(group)
    random = np.random.default_rng(2)
    coordinates = np.stack(np.unravel_index(np.arange(world.group.order), world.group.shape))
    for number, irrep in enumerate(world.irreps):
        assert irrep.frequency is not None
        turns = [f / n for f, n in zip(irrep.frequency, world.group.shape, strict=True)]
        angles = 2 * np.pi * (turns @ coordinates)
        A = random.normal(size=(4, irrep.dimension, irrep.dimension))
        functions = np.einsum("gab,nab->ng", irrep.matrices, A)
        found = neurons.phases(functions, np.full(4, number), world.parts)
        if irrep.degree == 1:
            assert np.isnan(found).all()
            continue
        answers = functions @ world.group.translates(world.template).T
        expected = np.cos(angles + found[:, None])
        cosines = (answers * expected).sum(1)
        cosines /= np.linalg.norm(answers, axis=1) * np.linalg.norm(expected, axis=1)
        np.testing.assert_allclose(cosines, 1.0, atol=1e-9)


@pytest.mark.parametrize("group", CYCLIC, ids=name_of)
def test_the_readout_of_a_translate_is_moved_by_the_negative_angle(group: GroupSettings) -> None:
    world = world_of(group)
    columns = world.group.translates(world.template)
    for number in np.flatnonzero(np.abs(world.parts.waves).any(1)):
        found = neurons.phases(columns, np.full(len(columns), number), world.parts)
        turned = np.exp(1j * found) * world.parts.waves[number]
        np.testing.assert_allclose(turned, 1.0, atol=1e-9)


@pytest.mark.parametrize("group", CYCLIC, ids=name_of)
@pytest.mark.parametrize(("model", "k"), [
    ("TwoLayerNet", 2), ("SequentialMLP", 3), ("SequentialMLP", 4), ("TreeMLP", 2),
    ("QuadraticRNN", 2), ("QuadraticRNN", 5),
])  # fmt: skip
def test_phases_of_exact_solutions_add_up(group: GroupSettings, model: Model, k: int) -> None:
    world = world_of(group)
    weights = world.weights(model, k)
    names = {"TreeMLP": ("W_left", "W_right"), "QuadraticRNN": ("W_in", "W_drive")}.get(model)
    inputs = np.stack([weights[name] for name in names]) if names else weights["W_in"]
    owners = owners_of(weights["W_out"], world.parts)
    readout = neurons.phases(weights["W_out"].T, owners, world.parts)
    errors = neurons.sum_errors(neurons.phases(inputs, owners, world.parts), readout)
    complex_type = np.array([irrep.degree == 2 for irrep in world.irreps])[owners]
    assert complex_type.any()
    assert np.abs(errors[complex_type]).max() < 1e-9
    assert np.isnan(errors[~complex_type]).all()


def test_a_wrong_phase_is_an_error_between_minus_pi_and_pi() -> None:
    errors = neurons.sum_errors(np.array([[3.0, 0.5], [3.0, 0.2]]), np.array([-0.1, 0.4]))
    np.testing.assert_allclose(errors, [6.1 - 2 * np.pi, 0.3])


def test_dead_neurons_and_groups_without_frequencies_have_no_phase() -> None:
    cyclic, dihedral = world_of(C11), world_of(D5)
    found = neurons.phases(np.ones((2, 11)) + np.arange(11), np.array([-1, 2]), cyclic.parts)
    assert np.isnan(found).tolist() == [True, False]
    assert not dihedral.parts.waves.any()
    assert np.isnan(neurons.phases(np.eye(10), np.full(10, 2), dihedral.parts)).all()


# --- order and blocks -----------------------------------------------------------------------------


def test_angles_without_phases_are_from_the_templates_part() -> None:
    world = world_of(S4)
    number = world.parts.learned[0]
    part = world.parts.template_parts[number]
    columns = world.parts.basis[:, world.parts.irrep_of == number]
    other = columns @ np.random.default_rng(3).normal(size=columns.shape[1])
    other -= part * (other @ part) / (part @ part)
    elsewhere = world.parts.template_parts[world.parts.learned[1]]
    functions = np.stack([2 * part + elsewhere, -part, other, np.zeros_like(part)])
    found = neurons.angles(functions, np.full(4, number), world.parts)
    np.testing.assert_allclose(found, [0.0, np.pi, np.pi / 2, np.pi / 2], atol=1e-7)


def test_neurons_are_sorted_by_learning_then_angle_with_dead_ones_last() -> None:
    parts = world_with(C10, TWO_WAVES).parts
    irreps = np.array([1, -1, 3, 1, 3, -1, 3])
    angle = np.array([0.3, 0.0, 0.2, -0.1, -0.3, -2.0, 0.1])
    order = neurons.sorted_neurons(irreps, angle, parts)
    assert order.tolist() == [4, 6, 2, 3, 0, 5, 1]


def test_the_share_of_a_block_matrix_is_one_and_of_a_random_one_the_mean() -> None:
    irreps = np.array([2, 0, 2, 0, 0, -1, 5])
    together = (irreps[:, None] == irreps) & (irreps >= 0)
    random = np.random.default_rng(4)
    assert neurons.within_blocks(random.normal(size=(7, 7)) * together, irreps) == pytest.approx(1)
    assert neurons.within_blocks(random.normal(size=(7, 7)) * ~together, irreps) == 0
    assert neurons.within_blocks(np.zeros((7, 7)), irreps) == 0
    expected = neurons.within_blocks_at_random(irreps)
    assert expected == pytest.approx((2**2 + 3**2 + 1) / 7**2)
    found = [neurons.within_blocks(random.normal(size=(7, 7)), irreps) for _ in range(4000)]
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / np.sqrt(len(found))


def test_chosen_things_are_spread_evenly_with_both_ends() -> None:
    assert neurons.evenly_chosen(4, 5).tolist() == [0, 1, 2, 3]
    assert neurons.evenly_chosen(21, 5).tolist() == [0, 5, 10, 15, 20]
    chosen = neurons.evenly_chosen(100, 12)
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 99, 12)
    assert set(np.diff(chosen)) <= {9, 10}


# --- files ----------------------------------------------------------------------------------------


def test_parts_say_what_the_file_of_the_task_holds() -> None:
    world = world_of(D5)
    assert world.parts.shape == (2, 5)
    assert world.parts.labels == world.group.labels
    assert world.parts.names == tuple(irrep.name for irrep in world.irreps)
    assert "f = (1, −2)" in world_of(C5XC5).parts.names
    np.testing.assert_allclose(world.parts.template_parts.sum(0), world.template, atol=1e-12)


def test_neurons_of_another_task_are_refused(tmp_path: Path) -> None:
    task, file = tmp_path / "task.h5", tmp_path / "neurons.h5"
    write_task(task, C10, noise(C10), settings='{"group": {"n": 10}}')
    parts = neurons.read_parts(task)
    layout = {"a": "neuron element", "b": "irrep"}
    arrays = {"a": np.zeros((3, 10)), "b": np.zeros(6)}

    def read(changes: dict[str, Any], **attributes: Any) -> dict[str, np.ndarray]:
        write_h5(file, arrays | changes, units={"a": "1", "b": "1"}, attributes=attributes)
        return neurons.read_neurons(file, layout, task=task, parts=parts)

    assert read({}).keys() == {"a", "b"}
    assert read({}, settings='{"group": {"n": 10}, "inspection": {}}').keys() == {"a", "b"}
    with pytest.raises(UserError, match="made with another group"):
        read({}, settings='{"group": {"n": 11}}')
    with pytest.raises(UserError, match=r"expected b to have the axes \[6\]"):
        read({"b": np.zeros(5)})
