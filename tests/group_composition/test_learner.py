"""Learners of several networks at once: each as if alone, divergence, updates, resuming.

What an update does is compared with plain torch, on the loss that the task defines.
"""

import copy
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from strata.group_composition.config import RunSettings
from strata.group_composition.fourier import isotypic_basis
from strata.group_composition.groups import build_group
from strata.group_composition.irreps import irreducible_representations
from strata.group_composition.learner import GroupLearner
from strata.group_composition.optimizers import replica_norms
from strata.group_composition.sequences import Grid, Listing
from strata.group_composition.tasks import Task
from strata.group_composition.train import build_learner
from strata.randomness import Generators

CPU = torch.device("cpu")
STEPS, FEW = 50, 16
RATES = {"adam": 1e-2, "per_neuron": 0.5, "sgd": 0.5, "hybrid": 1e-2}
D3 = {"name": "dihedral", "n": 3}
MODELS = [
    *[("QuadraticRNN", optimizer) for optimizer in ("adam", "sgd", "hybrid")],
    *[("SequentialMLP", optimizer) for optimizer in ("adam", "sgd", "per_neuron")],
    *[("TreeMLP", optimizer) for optimizer in ("adam", "sgd")],
]
EVERY_MODEL = pytest.mark.parametrize(("kind", "optimizer"), MODELS)


@cache
def task_of(settings: RunSettings) -> Task:
    """With a random template."""
    group = build_group(settings.group)
    irreps = irreducible_representations(group)
    basis, owners = isotypic_basis(irreps)
    template = np.random.default_rng(1).normal(size=group.order)
    return Task(
        translates=torch.from_numpy(group.translates(template - template.mean())),
        multiplication=torch.from_numpy(group.table),
        basis=torch.from_numpy(basis),
        irrep_of=torch.from_numpy(owners),
        n_irreps=len(irreps),
        length=settings.task.k,
        every=settings.task.outputs == "every",
    )


def settings_of(kind: str, optimizer: str, **sections: dict[str, Any]) -> RunSettings:
    given = {"steps": STEPS, "optimizer": optimizer, "lr": RATES[optimizer], "clip_norm": 0.1}
    plain: dict[str, dict[str, Any]] = {
        "group": D3,
        "template": {"name": "onehot"},
        "task": {"k": 3},
        "data": {"batch_size": 64},
        "model": {"kind": kind, "hidden_dim": 12, "init_scale": 0.6},
        "training": given,
        "seeds": {"n_init": 3},
    }
    changed = {name: {**part, **sections.get(name, {})} for name, part in plain.items()}
    return RunSettings.model_validate({**sections, **changed})


def learner_of(settings: RunSettings, generators: Generators | None = None) -> GroupLearner:
    return build_learner(settings, task_of(settings), generators or Generators(0, CPU))


def train(learner: GroupLearner, steps: range = range(STEPS), lr: float | None = None) -> Tensor:
    """Return the losses [step, replica]."""
    rate = learner._base if lr is None else lr
    return torch.stack([learner.update(step, rate)["losses"].clone() for step in steps])


def weights_of(learner: GroupLearner) -> dict[str, Tensor]:
    return {name: w.detach().clone() for name, w in learner.network.named_parameters()}


# --- replicas -----------------------------------------------------------------------------------


@EVERY_MODEL
def test_a_replica_ends_as_it_would_alone(kind: str, optimizer: str) -> None:
    """To the rounding of single precision after 50 steps (here mostly to the last bit)."""
    three = learner_of(settings_of(kind, optimizer))
    start, losses = weights_of(three), train(three)
    for replica in range(3):
        one = learner_of(settings_of(kind, optimizer, seeds={"n_init": 1, "init": replica}))
        alone = train(one)[:, 0]
        torch.testing.assert_close(losses[:, replica], alone, rtol=1e-5, atol=0.0)
        for name, weight in weights_of(one).items():
            scale = weight.abs().max().item()
            ours = weights_of(three)[name][replica]
            torch.testing.assert_close(ours, weight[0], rtol=0.0, atol=1e-5 * scale)
            assert (ours - start[name][replica]).abs().max() > 1e-2 * scale
    for weight in start.values():
        assert not torch.equal(weight[0], weight[1])


@EVERY_MODEL
@pytest.mark.parametrize("factor", [1e12, 1e30, math.nan])
def test_a_network_that_diverges_stays_where_it_was_and_the_others_go_on(
    kind: str, optimizer: str, factor: float
) -> None:
    """With 1e12 it is the gradient alone that overflows. The others do not change by a bit."""
    undisturbed = learner_of(settings_of(kind, optimizer))
    expected = train(undisturbed, range(FEW))
    learner = learner_of(settings_of(kind, optimizer))
    train(learner, range(5))
    with torch.no_grad():
        learner.network.weight("W_out")[1] *= factor
    broken = weights_of(learner)
    losses = train(learner, range(5, FEW))
    assert losses[:, 1].isnan().all()
    assert torch.equal(losses[:, [0, 2]], expected[5:, [0, 2]])
    assert learner.alive.tolist() == [True, False, True]
    for name, weight in weights_of(learner).items():
        assert torch.equal(weight[[0, 2]], weights_of(undisturbed)[name][[0, 2]])
        assert torch.equal(weight[1].nan_to_num(), broken[name][1].nan_to_num()), name
    found = learner.evaluate()
    assert found["losses"].isnan().tolist() == [False, True, False]
    assert found["loss"].item() == pytest.approx(found["losses"][[0, 2]].mean().item())


def test_loss_and_gradient_norm_are_means_of_the_networks_that_go_on() -> None:
    learner = learner_of(settings_of("QuadraticRNN", "adam"))
    for n_alive in (3, 2):
        losses, gradients = plain_gradients(learner, step=0)
        norms = replica_norms(gradients)
        learner._stream = FixedStream(0)
        found = learner.update(0, 1e-2)
        assert found["loss"].item() == pytest.approx(losses[:n_alive].mean().item())
        assert found["gradient_norm"].item() == pytest.approx(norms[:n_alive].mean().item())
        learner.alive[2] = False


# --- one update ---------------------------------------------------------------------------------


class FixedStream:
    """The same sequences at every step, of which the seed decides."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def draw(self, step: int, into: Tensor) -> None:
        generator = torch.Generator().manual_seed(self._seed)
        into.copy_(torch.randint(6, into.shape, generator=generator))


def plain_gradients(learner: GroupLearner, step: int) -> tuple[Tensor, list[Tensor]]:
    elements = torch.empty((64, 3), dtype=torch.int64)
    FixedStream(0).draw(step, elements)
    losses = learner.task.losses(learner.network, Listing(elements, learner.task.multiplication))
    return losses.detach(), list(torch.autograd.grad(losses.sum(), learner._weights))


@pytest.mark.parametrize("clip_norm", [None, 0.02])
def test_adam_follows_gradients_that_are_clipped_per_network(clip_norm: float | None) -> None:
    """Torch's Adam and torch's clipping, one network at a time."""
    learner = learner_of(settings_of("QuadraticRNN", "adam", training={"clip_norm": clip_norm}))
    learner._stream = FixedStream(0)
    singles = [[nn.Parameter(w[r].clone()) for w in learner._weights] for r in range(3)]
    optimizers = [torch.optim.Adam(single, lr=1e-2) for single in singles]
    for step in range(5):
        _, gradients = plain_gradients(learner, step)
        learner.update(step, 1e-2)
        for r, (single, optimizer) in enumerate(zip(singles, optimizers, strict=True)):
            for weight, gradient in zip(single, gradients, strict=True):
                weight.grad = gradient[r].clone()
            if clip_norm is not None:
                assert nn.utils.clip_grad_norm_(single, clip_norm) > clip_norm
            optimizer.step()
    for r, single in enumerate(singles):
        for ours, theirs in zip(learner._weights, single, strict=True):
            torch.testing.assert_close(ours[r], theirs, rtol=1e-4, atol=1e-6)


def test_a_step_of_all_sequences_is_a_step_of_the_grid() -> None:
    """Per neuron, so that clipping the gradient before it is scaled would show."""
    data = {"mode": "exhaustive", "batch_size": None}
    large = {"init_scale": 2.0}
    whole = learner_of(settings_of("SequentialMLP", "per_neuron", data=data, model=large))
    start = weights_of(whole)
    losses = whole.task.losses(whole.network, Grid(whole.task.multiplication, 3))
    of_inputs, of_outputs = torch.autograd.grad(losses.sum(), whole._weights)
    squares = start["W_in"].square().sum((1, 3)) + start["W_out"].square().sum(1)
    steps = [of_inputs / squares[:, None, :, None], of_outputs / squares[:, None, :]]
    norms = replica_norms(steps)
    assert norms.min() > 0.1
    assert train(whole, range(1))[0].tolist() == pytest.approx(losses.tolist())
    for (name, after), step in zip(weights_of(whole).items(), steps, strict=True):
        shrink = (0.1 / norms).view(-1, *[1] * (step.ndim - 1))
        torch.testing.assert_close(after, start[name] - RATES["per_neuron"] * shrink * step)


@pytest.mark.parametrize("kind", ["QuadraticRNN", "SequentialMLP"])
def test_a_step_in_closed_form_is_that_of_all_sequences(kind: str) -> None:
    losses = [
        train(
            learner_of(settings_of(kind, "sgd", data={"mode": mode, "batch_size": None})),
            range(FEW),
        )
        for mode in ("population", "exhaustive")
    ]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "k"),
    [("QuadraticRNN", 3), ("SequentialMLP", 5), ("TreeMLP", 4), ("TwoLayerNet", 2)],
)
def test_a_network_that_starts_exactly_stays_there(kind: str, k: int) -> None:
    """With neurons to spare, which are zero."""
    optimizer = "per_neuron" if kind == "SequentialMLP" else "sgd"
    learner = learner_of(
        settings_of(
            kind,
            optimizer,
            group={"name": "cyclic", "n": 3},
            task={"k": k},
            model={"start": "exact", "hidden_dim": 120, "output_scale": 3.0},
            training={"lr": 1e-3},
        )
    )
    level = learner.task.translates.square().mean()
    assert train(learner, range(5)).max() < 1e-8 * level


def test_a_recurrent_network_learns_from_sequences_of_two() -> None:
    """Where no hidden state is mixed with another, W_mix has no gradient and stays as it is."""
    learner = learner_of(settings_of("QuadraticRNN", "adam", task={"k": 2}))
    start = weights_of(learner)
    losses = train(learner)
    assert (losses[-1] < losses[0]).all()
    assert torch.equal(weights_of(learner)["W_mix"], start["W_mix"])


@pytest.mark.parametrize("optimizer", ["sgd", "hybrid"])
def test_all_rates_follow_the_schedule_in_proportion(optimizer: str) -> None:
    """Half the rate makes half the step; Adam's first step is one rate long everywhere."""
    steps = []
    for share in (1.0, 0.5, 0.0):
        learner = learner_of(settings_of("QuadraticRNN", optimizer))
        start = weights_of(learner)
        train(learner, range(1), lr=share * RATES[optimizer])
        steps.append({name: w - start[name] for name, w in weights_of(learner).items()})
    for name, whole in steps[0].items():
        assert whole.abs().max() > 0
        torch.testing.assert_close(steps[1][name], whole / 2, rtol=1e-3, atol=1e-7)
        assert not steps[2][name].any()


# --- resuming and stopping ----------------------------------------------------------------------


@EVERY_MODEL
@pytest.mark.parametrize("data", [{}, {"mode": "sampled", "num_samples": 200}])
def test_a_resumed_learner_goes_on_bit_by_bit(
    kind: str, optimizer: str, data: dict[str, Any]
) -> None:
    settings = settings_of(kind, optimizer, data=data)
    whole = learner_of(settings)
    expected = train(whole, range(FEW))
    generators = Generators(0, CPU)
    first = learner_of(settings, generators)
    train(first, range(7))
    states = copy.deepcopy(
        (first.module.state_dict(), first.optimizer.state_dict(), first.state_dict(),
         generators.state_dict())
    )  # fmt: skip
    fresh = Generators(0, CPU)
    resumed = learner_of(settings, fresh)
    for part, state in zip(
        (resumed.module, resumed.optimizer, resumed, fresh), states, strict=True
    ):
        part.load_state_dict(state)
    assert torch.equal(train(resumed, range(7, FEW)), expected[7:])
    for name, weight in weights_of(whole).items():
        assert torch.equal(weights_of(resumed)[name], weight)
