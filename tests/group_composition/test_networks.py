"""Networks on indices against dense formulations on inputs that are written out, one replica each.

Translates, targets, forward passes and losses are written here from their definitions, in double
precision; gradients of the definitions are torch's.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from strata.group_composition.exact_solutions import exact_weights, width
from strata.group_composition.fourier import isotypic_basis, powers
from strata.group_composition.group_settings import Cyclic, Dihedral, GroupSettings, Product
from strata.group_composition.groups import build_group
from strata.group_composition.irreps import Irrep, irreducible_representations
from strata.group_composition.model_settings import ModelKind, ModelSettings
from strata.group_composition.networks import NONLINEARITIES, Network, build_network, merges
from strata.group_composition.sequences import Grid, Listing, Sequences
from strata.group_composition.tasks import Task

RNN: ModelKind = "QuadraticRNN"
MLP: ModelKind = "SequentialMLP"
NET: ModelKind = "TwoLayerNet"
TREE: ModelKind = "TreeMLP"
C3, C5, C2xC3, D3 = Cyclic(n=3), Cyclic(n=5), Product(orders=(2, 3)), Dihedral(n=3)
LISTED = 60
WIDTH = 7


@dataclass(frozen=True)
class Case:
    """A network on sequences of k elements of a group."""

    group: GroupSettings
    k: int
    model: ModelSettings
    every: bool = False

    def __str__(self) -> str:
        model = self.model
        words = [model.kind, model.transform, model.nonlinearity, f"k{self.k}", str(self.group)]
        return " ".join([*words, "every" if self.every else "last"])


def settings(kind: ModelKind, **changes: object) -> ModelSettings:
    """Weights of the order of one, so that no term of an output is negligible."""
    return ModelSettings(kind=kind, hidden_dim=WIDTH, init_scale=1.0).model_copy(update=changes)


QUADRATIC, PRODUCT = settings(RNN), settings(RNN, transform="multiplicative")
CASES = [
    *[Case(D3, k, model, every) for k in (2, 3, 4) for model in (QUADRATIC, PRODUCT)
      for every in (False, True)],
    *[Case(C2xC3, 3, model, True) for model in (QUADRATIC, PRODUCT)],
    *[Case(C3, 5, model, every) for model in (QUADRATIC, PRODUCT) for every in (False, True)],
    *[Case(D3, k, settings(kind)) for kind in (MLP, TREE) for k in (2, 3, 4)],
    *[Case(C3, 5, settings(kind)) for kind in (MLP, TREE)],
    *[Case(C2xC3, 3, settings(kind)) for kind in (MLP, TREE)],
    *[Case(D3, 2, settings(NET, nonlinearity=name, output_scale=scale))
      for name in NONLINEARITIES for scale in (1.0, 2.5)],
    Case(C5, 2, settings(NET)),
]  # fmt: skip
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=str)


# --- definitions --------------------------------------------------------------------------------


@cache
def group_of(group: GroupSettings) -> tuple[np.ndarray, tuple[Irrep, ...]]:
    built = build_group(group)
    return built.table, irreducible_representations(built)


def template_of(group: GroupSettings) -> np.ndarray:
    table, _ = group_of(group)
    template = np.random.default_rng(3).normal(size=len(table))
    return template - template.mean()


def translates_of(group: GroupSettings) -> Tensor:
    """x_g[g h] = x[h]."""
    table, template = group_of(group)[0], template_of(group)
    moved = np.zeros((len(table), len(table)))
    for g in range(len(table)):
        moved[g, table[g]] = template
    return torch.from_numpy(moved)


def task_of(case: Case) -> Task:
    table, irreps = group_of(case.group)
    basis, owners = isotypic_basis(irreps)
    return Task(
        translates=translates_of(case.group).float(),
        multiplication=torch.from_numpy(table),
        basis=torch.from_numpy(basis).float(),
        irrep_of=torch.from_numpy(owners),
        n_irreps=len(irreps),
        length=case.k,
        every=case.every,
    )


def double_task(case: Case) -> Task:
    task = task_of(case).to(torch.device("cpu"), torch.float64)
    return Task(**{**vars(task), "translates": translates_of(case.group)})


def network_of(case: Case, n_replicas: int = 1) -> Network:
    generators = [torch.Generator().manual_seed(seed) for seed in range(n_replicas)]
    n_elements = len(group_of(case.group)[0])
    network = build_network(case.model, n_elements=n_elements, length=case.k, generators=generators)
    return network.double()


def sequences_of(case: Case, kind: str) -> tuple[Sequences, Tensor]:
    """Sequences as the networks take them, and their elements, one row each."""
    table = torch.from_numpy(group_of(case.group)[0])
    if kind == "grid":
        rows = list(itertools.product(range(len(table)), repeat=case.k))
        return Grid(table, case.k), torch.tensor(rows)
    generator = torch.Generator().manual_seed(9)
    elements = torch.randint(len(table), (LISTED, case.k), generator=generator)
    return Listing(elements, table), elements


def dense_outputs(case: Case, W: Mapping[str, Tensor], x: Sequence[Tensor]) -> list[Tensor]:
    """Outputs [sequence, element] of one network; x[t] holds the translates x_{g_t}."""
    kind, k = case.model.kind, case.k
    if kind == MLP:
        return [sum(x[j] @ W["W_in"][j].T for j in range(k)) ** k @ W["W_out"].T]
    if kind == NET:
        phi = {"square": torch.square, "relu": torch.relu, "tanh": torch.tanh,
               "gelu": functional.gelu, "linear": torch.clone}[case.model.nonlinearity]  # fmt: skip
        hidden = phi(x[0] @ W["W_in"][0].T + x[1] @ W["W_in"][1].T)
        return [case.model.output_scale * hidden @ W["W_out"].T]
    if kind == TREE:
        return [dense_tree(k, W, x) @ W["W_out"].T]
    joined = torch.mul if case.model.transform == "multiplicative" else lambda a, b: (a + b) ** 2
    states = [joined(x[0] @ W["W_in"].T, x[1] @ W["W_drive"].T)]
    for t in range(2, k):
        states.append(joined(states[-1] @ W["W_mix"].T, x[t] @ W["W_drive"].T))
    return [h @ W["W_out"].T for h in states]


def dense_tree(k: int, W: Mapping[str, Tensor], x: Sequence[Tensor]) -> Tensor:
    """The trees of up to five elements, written out."""

    def pair(a: Tensor, b: Tensor) -> Tensor:
        return (a @ W["W_left"].T + b @ W["W_right"].T) ** 2

    def upper(level: int, left: Tensor, right: Tensor, entry: str) -> Tensor:
        return (left @ W[f"M_left_{level}"].T + right @ W[f"{entry}_{level}"].T) ** 2

    h12 = pair(x[0], x[1])
    if k == 2:
        return h12
    if k == 3:
        return upper(2, h12, x[2], "W_late")
    h1234 = upper(2, h12, pair(x[2], x[3]), "M_right")
    return h1234 if k == 4 else upper(3, h1234, x[4], "W_late")


def dense_targets(case: Case, elements: Tensor) -> list[Tensor]:
    """The translates by g_1 ... g_t, for every t that has a target."""
    table, translates = group_of(case.group)[0], translates_of(case.group)
    products = [row[0] for row in elements.tolist()]
    targets = []
    for t in range(1, case.k):
        products = [
            int(table[p, row[t]]) for p, row in zip(products, elements.tolist(), strict=True)
        ]
        targets.append(translates[products])
    return targets if case.every else targets[-1:]


def dense_loss(case: Case, W: Mapping[str, Tensor], elements: Tensor) -> Tensor:
    """Mean squared error over sequences, outputs and elements."""
    x = [translates_of(case.group)[elements[:, t]] for t in range(case.k)]
    targets = torch.stack(dense_targets(case, elements))
    outputs = torch.stack(dense_outputs(case, W, x)[-len(targets) :])
    return ((outputs - targets) ** 2).mean()


def weights_of(network: Network, replica: int) -> dict[str, Tensor]:
    return {
        name: weight[replica].detach().clone().requires_grad_()
        for name, weight in network.named_parameters()
    }


# --- forward and backward -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["listing", "grid"])
@EVERY_CASE
def test_losses_and_gradients_are_those_of_the_dense_formulation(case: Case, kind: str) -> None:
    task, network = double_task(case), network_of(case, n_replicas=2)
    sequences, elements = sequences_of(case, kind)
    losses = task.losses(network, sequences)
    found = torch.autograd.grad(losses.sum(), list(network.parameters()), allow_unused=True)
    for replica in range(2):
        W = weights_of(network, replica)
        expected = dense_loss(case, W, elements)
        torch.testing.assert_close(losses[replica], expected, rtol=1e-12, atol=0.0)
        gradients = torch.autograd.grad(expected, list(W.values()), allow_unused=True)
        for name, ours, theirs in zip(W, found, gradients, strict=True):
            assert (ours is None) == (theirs is None), name
            if ours is not None and theirs is not None:
                scale = theirs.abs().max().item()
                torch.testing.assert_close(ours[replica], theirs, rtol=0.0, atol=1e-12 * scale)


@EVERY_CASE
def test_outputs_are_those_of_the_dense_formulation(case: Case) -> None:
    network = network_of(case, n_replicas=3)
    sequences, elements = sequences_of(case, "listing")
    x = [translates_of(case.group)[elements[:, t]] for t in range(case.k)]
    found = network.outputs(translates_of(case.group), sequences)
    for replica in range(3):
        expected = dense_outputs(case, weights_of(network, replica), x)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours[replica], theirs, rtol=1e-11, atol=1e-11)


# --- exact solutions ----------------------------------------------------------------------------

EXACT = [
    *[Case(C5, k, settings(TREE)) for k in range(2, 9)],
    *[Case(C5, k, settings(MLP)) for k in (2, 3, 4)],
    *[Case(D3, k, settings(kind)) for kind in (TREE, MLP) for k in (2, 3)],
    *[Case(D3, k, model, every) for k in (2, 3, 4) for model in (QUADRATIC, PRODUCT)
      for every in (False, True)],
    *[Case(C5, k, model, True) for k in (2, 3, 5, 8) for model in (QUADRATIC, PRODUCT)],
    *[Case(group, 2, settings(NET)) for group in (C5, C2xC3, D3)],
]  # fmt: skip


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_exact_weights_have_no_loss(case: Case) -> None:
    """The theory's weights in the networks: less than 1e-12 of the loss of an output of zero."""
    table, irreps = group_of(case.group)
    template, transform = template_of(case.group), case.model.transform
    kind = case.model.kind
    n_neurons = width(irreps, powers(irreps, template), kind, case.k, transform)
    wide = case.model.model_copy(update={"hidden_dim": n_neurons})
    network = network_of(Case(case.group, case.k, wide))
    exact = exact_weights(build_group(case.group), irreps, template, kind, case.k, transform)
    assert set(exact) == set(dict(network.named_parameters()))
    network.load_state_dict(
        {name: torch.from_numpy(weight)[None] for name, weight in exact.items()}
    )
    is_few = len(table) ** case.k <= 10_000
    sequences, _ = sequences_of(case, "grid" if is_few else "listing")
    assert task_losses(case, network, sequences) < 1e-12 * initial_loss(case)


def initial_loss(case: Case) -> float:
    return float((template_of(case.group) ** 2).mean())


def task_losses(case: Case, network: Network, sequences: Sequences) -> float:
    return double_task(case).losses(network, sequences).item()


# --- shapes and initial weights -----------------------------------------------------------------


@pytest.mark.parametrize("k", range(2, 40))
def test_a_tree_has_as_few_levels_as_pairs_allow(k: int) -> None:
    assert len(merges(k)) == math.ceil(math.log2(k))


@pytest.mark.parametrize("kind", [RNN, MLP, TREE])
def test_initial_weights_are_normal_with_the_scale_over_the_inputs_root(kind: ModelKind) -> None:
    case = Case(Cyclic(n=50), 3, settings(kind, hidden_dim=80, init_scale=0.3))
    for name, weight in network_of(case).named_parameters():
        n_inputs = weight[0].numel() // 80 if name == "W_in" and kind == MLP else weight.shape[-1]
        z = (weight * math.sqrt(n_inputs) / 0.3).flatten()
        assert abs(z.mean().item()) < 4 / math.sqrt(len(z)), name
        assert abs(z.square().mean().item() - 1) < 4 * math.sqrt(2 / len(z)), name
        assert abs((z**4).mean().item() - 3) < 4 * math.sqrt(96 / len(z)), name


@pytest.mark.parametrize("kind", [RNN, MLP, NET, TREE])
def test_a_replica_starts_from_its_own_generator_alone(kind: ModelKind) -> None:
    case = Case(D3, 2, settings(kind))
    three = dict(network_of(case, n_replicas=3).named_parameters())
    for name, weight in network_of(case).named_parameters():
        assert torch.equal(weight[0], three[name][0])
        assert not torch.equal(weight[0], three[name][1])
