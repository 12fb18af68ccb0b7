"""What an evaluation of networks finds, and when it ends a run.

Oracles are closed forms (at the exact solution every representation is there in full) and parts of
outputs taken by Fourier transform and back.
"""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from strata.group_composition.config import RunSettings
from strata.group_composition.exact_solutions import exact_weights
from strata.group_composition.fourier import (
    fourier_transform,
    inverse_transform,
    isotypic_basis,
    powers,
)
from strata.group_composition.group_settings import GroupSettings
from strata.group_composition.groups import FiniteGroup, build_group
from strata.group_composition.irreps import Irrep, irreducible_representations
from strata.group_composition.learner import GroupLearner
from strata.group_composition.sequences import Grid, Listing
from strata.group_composition.tasks import Task
from strata.group_composition.train import build_learner
from strata.learner import UpdatingLearner
from strata.randomness import Generators

C6, D5 = {"name": "cyclic", "n": 6}, {"name": "dihedral", "n": 5}
CASES = [
    ("QuadraticRNN", D5, 3, "every"),
    ("QuadraticRNN", C6, 4, "last"),
    ("SequentialMLP", D5, 2, "last"),
    ("TreeMLP", C6, 3, "last"),
]
EVERY_CASE = pytest.mark.parametrize(("kind", "group", "k", "outputs"), CASES)
WIDTH = 100


def settings_of(
    kind: str, group: dict[str, Any], k: int, outputs: str = "last", **sections: dict[str, Any]
) -> RunSettings:
    return RunSettings.model_validate(
        {
            "group": group,
            "template": {"name": "onehot"},
            "task": {"k": k, "outputs": outputs},
            "model": {"kind": kind, "hidden_dim": WIDTH, "init_scale": 0.3},
            "seeds": {"n_init": 3},
            **sections,
        }
    )


@cache
def group_of(settings: GroupSettings) -> tuple[FiniteGroup, tuple[Irrep, ...]]:
    group = build_group(settings)
    return group, irreducible_representations(group)


def template_of(settings: RunSettings) -> np.ndarray:
    """Random, without the trivial representation and the last but one."""
    group, irreps = group_of(settings.group)
    coefficients = list(
        fourier_transform(irreps, np.random.default_rng(1).normal(size=group.order))
    )
    for left_out in (0, len(irreps) - 2):
        coefficients[left_out] = 0 * coefficients[left_out]
    return inverse_transform(irreps, coefficients)


def task_of(settings: RunSettings) -> Task:
    group, irreps = group_of(settings.group)
    basis, owners = isotypic_basis(irreps)
    return Task(
        translates=torch.from_numpy(group.translates(template_of(settings))),
        multiplication=torch.from_numpy(group.table),
        basis=torch.from_numpy(basis),
        irrep_of=torch.from_numpy(owners),
        n_irreps=len(irreps),
        length=settings.task.k,
        every=settings.task.outputs == "every",
    )


def learner_of(settings: RunSettings) -> GroupLearner:
    return build_learner(settings, task_of(settings), Generators(0, torch.device("cpu")))


def double_learner(settings: RunSettings) -> GroupLearner:
    """One that is evaluated in double precision, on all sequences."""
    learner = learner_of(settings)
    learner.network.double()
    learner.task = task_of(settings)
    learner._evaluated = Grid(learner.task.multiplication, settings.task.k)
    return learner


def make_exact(learner: GroupLearner, settings: RunSettings) -> None:
    """Make the first network exact, the second zero, and the third twice too large."""
    group, irreps = group_of(settings.group)
    kind, k = settings.model.kind, settings.task.k
    exact = exact_weights(group, irreps, template_of(settings), kind, k, width=WIDTH)
    for name, weight in learner.network.named_parameters():
        sizes = [1.0, 0.0, 2.0 if name == "W_out" else 1.0]
        weight.data.copy_(torch.stack([size * torch.from_numpy(exact[name]) for size in sizes]))


@EVERY_CASE
def test_exact_solutions_have_all_of_every_representation_and_zeros_nothing(
    kind: str, group: dict[str, Any], k: int, outputs: str
) -> None:
    settings = settings_of(kind, group, k, outputs)
    learner = double_learner(settings)
    make_exact(learner, settings)
    template = template_of(settings)
    aims = torch.from_numpy(powers(group_of(settings.group)[1], template))
    is_there = (aims > 1e-10 * aims.sum()).double()
    assert is_there.sum() == len(aims) - 2
    sizes = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)[:, None]
    level = float((template**2).mean())
    losses = torch.tensor([0.0, level, level], dtype=torch.float64)
    found = learner.evaluate()
    torch.testing.assert_close(found["coefficients"], sizes * is_there, rtol=0.0, atol=1e-9)
    torch.testing.assert_close(found["output_powers"], sizes**2 * aims, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found["losses"], losses, rtol=1e-9, atol=1e-9)
    assert found["loss"].item() == pytest.approx(2 * level / 3, rel=1e-9)


@EVERY_CASE
def test_coefficients_and_powers_are_those_of_the_parts_of_outputs(
    kind: str, group: dict[str, Any], k: int, outputs: str
) -> None:
    """<y_R, target_R> / <target_R, target_R> and <y_R, y_R>, summed over all sequences."""
    settings = settings_of(kind, group, k, outputs)
    learner = double_learner(settings)
    task, (_, irreps) = learner.task, group_of(settings.group)
    after = range(2 if outputs == "every" else k, k + 1)
    own = learner.network.outputs(task.translates, learner._evaluated)[-len(after) :]
    overlaps, own_powers, aims = (np.zeros((3, len(irreps))) for _ in range(3))
    for output, t in zip(own, after, strict=True):
        wanted = task.translates[learner._evaluated.products(t)].numpy()
        for number in range(len(irreps)):
            project = projection(irreps, number)
            for replica in range(3):
                y = output[replica].detach().numpy() @ project
                aim = wanted @ project
                overlaps[replica, number] += (y * aim).sum() / len(y)
                own_powers[replica, number] += (y * y).sum() / len(y) / len(after)
                aims[replica, number] += (aim * aim).sum() / len(y)
    is_there = aims > 1e-9
    expected = np.where(is_there, overlaps / np.where(is_there, aims, 1.0), 0.0)
    found = learner.evaluate()
    np.testing.assert_allclose(found["coefficients"], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found["output_powers"], own_powers, rtol=1e-9, atol=1e-15)
    assert np.abs(expected[is_there]).min() > 1e-9


def projection(irreps: tuple[Irrep, ...], number: int) -> np.ndarray:
    """The matrix that takes a function, as a row, to its part in one representation."""
    parts = []
    for unit in np.eye(len(irreps[0].matrices)):
        coefficients = [0 * x_hat for x_hat in fourier_transform(irreps, unit)]
        coefficients[number] = fourier_transform(irreps, unit)[number]
        parts.append(inverse_transform(irreps, coefficients))
    return np.stack(parts)


def test_many_sequences_are_evaluated_on_a_fixed_sample() -> None:
    few = {"n_sequences": 100}
    sampled = settings_of("QuadraticRNN", D5, 3, evaluation=few)
    first, again = learner_of(sampled), learner_of(sampled)
    first.update(0, 0.0)
    assert isinstance(first._evaluated, Listing)
    assert first._evaluated.columns.shape == (3, 100)
    assert torch.equal(first.evaluate()["losses"], again.evaluate()["losses"])


# --- the end ------------------------------------------------------------------------------------


def test_a_run_ends_when_every_network_removed_the_asked_share_of_its_loss() -> None:
    """Networks that diverged are not waited for; double precision is taken as well."""
    asked = settings_of("TreeMLP", C6, 3, training={"reduction_threshold": 0.75})
    learner = learner_of(asked)
    assert isinstance(learner, UpdatingLearner)
    begun = learner.evaluate()["losses"].double()
    shares = torch.tensor([0.1, 0.24, 0.26], dtype=torch.float64)
    assert not learner.is_finished({"losses": begun * shares})
    assert learner.is_finished({"losses": begun * shares.clamp_max(0.24)})
    learner.alive[2] = False
    assert learner.is_finished({"losses": begun * shares})
    learner.alive[1] = False
    assert not learner.is_finished({"losses": begun})


def test_a_run_that_asks_for_no_reduction_is_never_finished() -> None:
    learner = learner_of(settings_of("TreeMLP", C6, 3))
    assert not learner.is_finished({"losses": torch.zeros(3)})


def test_a_resumed_learner_knows_who_diverged_and_where_all_began() -> None:
    settings = settings_of("TreeMLP", C6, 3, training={"reduction_threshold": 0.5})
    first, resumed = learner_of(settings), learner_of(settings)
    first.alive[0] = False
    resumed._initial.zero_()
    resumed.load_state_dict(first.state_dict())
    assert resumed.alive.tolist() == [False, True, True]
    begun = first.evaluate()["losses"]
    for share, is_enough in ((0.51, False), (0.49, True)):
        losses = torch.where(first.alive, share * begun, math.nan)
        assert resumed.is_finished({"losses": losses}) is is_enough
