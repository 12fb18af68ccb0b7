"""Exact losses and their gradients against those over all sequences, listed one by one."""

import itertools
import math
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from strata.group_composition.group_settings import Cyclic, Dicyclic, Dihedral, Product, Symmetric
from strata.group_composition.groups import FiniteGroup, build_group
from strata.group_composition.population import population_loss, recurrent_population_loss

GROUPS = {
    "C_2": Cyclic(n=2),
    "C_5": Cyclic(n=5),
    "C_6": Cyclic(n=6),
    "C_7": Cyclic(n=7),
    "C_3 x C_4": Product(orders=(3, 4)),
    "D_3": Dihedral(n=3),
    "S_3": Symmetric(n=3),
    "Q_8": Dicyclic(n=2),
}
WIDTH = 5
POWERS = [  # group, length of the sequences, power
    ("C_7", 2, 2), ("C_7", 3, 3), ("C_3 x C_4", 3, 3), ("C_6", 4, 4), ("D_3", 2, 2), ("D_3", 3, 3),
    ("Q_8", 3, 3), ("C_7", 1, 2), ("D_3", 2, 3), ("D_3", 4, 1), ("D_3", 4, 2), ("C_2", 5, 5),
]  # fmt: skip
RECURRENT = [("C_5", 3), ("C_5", 4), ("S_3", 2), ("S_3", 3), ("D_3", 4)]
TRANSFORMS = pytest.mark.parametrize("quadratic", [True, False], ids=["squares", "products"])
Weights = Mapping[str, Tensor]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Task:
    """A group, its table and the translates of a template that has a mean."""

    def __init__(self, name: str, template: Tensor | None = None) -> None:
        self.group: FiniteGroup = build_group(GROUPS[name])
        template = normal(self.group.order, seed=9) + 0.3 if template is None else template
        self.translates = torch.from_numpy(self.group.translates(template.numpy()))
        self.table = torch.from_numpy(self.group.table)

    def sequences(self, length: int) -> tuple[list[Tensor], Tensor]:
        """The translates [sequence, element] of each element of all sequences, and the target."""
        elements = torch.tensor(list(itertools.product(range(self.group.order), repeat=length)))
        products = torch.from_numpy(self.group.product(elements.numpy()))
        return [self.translates[g] for g in elements.unbind(1)], self.translates[products]

    def power_weights(self, length: int, *, replicas: int = 2) -> dict[str, Tensor]:
        P = self.group.order
        weights = {
            "W_in": normal(replicas, length, WIDTH, P, seed=1) / math.sqrt(P),
            "W_out": normal(replicas, P, WIDTH, seed=2),
        }
        return {name: weight.requires_grad_() for name, weight in weights.items()}

    def recurrent_weights(self, *, replicas: int = 2) -> dict[str, Tensor]:
        P = self.group.order
        weights = {
            "W_in": normal(replicas, WIDTH, P, seed=3) / math.sqrt(P),
            "W_drive": normal(replicas, WIDTH, P, seed=4) / math.sqrt(P),
            "W_mix": normal(replicas, WIDTH, WIDTH, seed=5) / math.sqrt(WIDTH),
            "W_out": normal(replicas, P, WIDTH, seed=6),
        }
        return {name: weight.requires_grad_() for name, weight in weights.items()}

    def power_loss(self, weights: Weights, power: int, **options: int) -> Tensor:
        x = self.translates.to(weights["W_in"])
        tables = x @ weights["W_in"].mT
        return population_loss(tables, weights["W_out"], x, self.table, power, **options)

    def recurrent_loss(
        self, weights: Weights, length: int, quadratic: bool, **options: int
    ) -> Tensor:
        x = self.translates.to(weights["W_in"])
        tables = (x @ weights["W_in"].mT, x @ weights["W_drive"].mT)
        matrices = (weights["W_mix"], weights["W_out"], x, self.table)
        return recurrent_population_loss(*tables, *matrices, length, quadratic=quadratic, **options)

    def listed_power_loss(self, weights: Weights, power: int) -> Tensor:
        inputs, target = self.sequences(weights["W_in"].shape[1])
        sums = sum(x @ W.mT for x, W in zip(inputs, weights["W_in"].unbind(1), strict=True))
        return (sums**power @ weights["W_out"].mT - target).square().mean((1, 2))

    def listed_recurrent_loss(self, weights: Weights, length: int, quadratic: bool) -> Tensor:
        (first, *others), target = self.sequences(length)
        state = first @ weights["W_in"].mT
        for t, x in enumerate(others):
            if t > 0:
                state = state @ weights["W_mix"].mT
            drive = x @ weights["W_drive"].mT
            state = (state + drive) ** 2 if quadratic else state * drive
        return (state @ weights["W_out"].mT - target).square().mean((1, 2))


def assert_same(loss: Tensor, listed: Tensor, weights: Weights) -> None:
    """Losses and gradients agree; replicas have weights of their own in what is differentiated."""
    torch.testing.assert_close(loss, listed, rtol=1e-12, atol=0)
    shares = torch.tensor([1.0, -2.5], dtype=torch.float64)
    leaves = [weight for weight in weights.values() if weight.requires_grad]
    found, expected = (
        torch.autograd.grad(some @ shares, leaves, materialize_grads=True)
        for some in (loss, listed)
    )
    for name, one, other in zip(weights, found, expected, strict=False):
        largest = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10 * largest, msg=name)


@pytest.mark.parametrize(("name", "length", "power"), POWERS)
def test_powers_of_sums_have_the_loss_and_gradient_of_all_sequences(
    name: str, length: int, power: int
) -> None:
    task = Task(name)
    weights = task.power_weights(length)
    loss = task.power_loss(weights, power)
    assert_same(loss, task.listed_power_loss(weights, power), weights)


@TRANSFORMS
@pytest.mark.parametrize(("name", "length"), RECURRENT)
def test_recurrent_networks_have_the_loss_and_gradient_of_all_sequences(
    name: str, length: int, quadratic: bool
) -> None:
    task = Task(name)
    weights = task.recurrent_weights()
    loss = task.recurrent_loss(weights, length, quadratic)
    assert_same(loss, task.listed_recurrent_loss(weights, length, quadratic), weights)


def losses(task: Task) -> list[tuple[dict[str, Tensor], Callable[..., Tensor]]]:
    """Weights and their loss, for each kind of network; the loss takes weights and options."""

    def recurrent(length: int, quadratic: bool) -> Callable[..., Tensor]:
        return lambda weights, **options: task.recurrent_loss(weights, length, quadratic, **options)

    def power(weights: Weights, **options: int) -> Tensor:
        return task.power_loss(weights, 3, **options)

    of_recurrent = task.recurrent_weights()
    kinds = [recurrent(3, True), recurrent(3, False), recurrent(2, True)]
    return [(task.power_weights(3), power), *((of_recurrent, kind) for kind in kinds)]


KINDS = pytest.mark.parametrize(
    "kind", range(4), ids=["power", "squares", "products", "squares of two"]
)


@KINDS
def test_replicas_do_not_see_each_other(kind: int) -> None:
    weights, loss = losses(Task("D_3"))[kind]
    both = loss(weights)
    for replica in range(2):
        alone = loss({name: weight[replica : replica + 1] for name, weight in weights.items()})
        torch.testing.assert_close(alone[0], both[replica], rtol=1e-14, atol=0)
    assert not torch.allclose(both[0], both[1], rtol=0.01)


class KeptNumbers:
    """How many numbers are kept for gradients at a time, at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def pack(self, tensor: Tensor) -> "Kept":
        self.now += tensor.numel()
        self.most = max(self.most, self.now)
        return Kept(self, tensor)

    @staticmethod
    def unpack(kept: "Kept") -> Tensor:
        return kept.tensor


class Kept:
    def __init__(self, of: KeptNumbers, tensor: Tensor) -> None:
        self.of, self.tensor = of, tensor

    def __del__(self) -> None:
        self.of.now -= self.tensor.numel()


@KINDS
def test_little_working_memory_is_kept_to_and_changes_no_result(kind: int) -> None:
    weights, loss = losses(Task("D_3"))[kind]
    results, most = [], []
    for working_memory in (1, 50_000, 2**30):
        kept = KeptNumbers()
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
            found = loss(weights, working_memory=working_memory)
        most.append(kept.most)
        results.append([found, *torch.autograd.grad(found.sum(), list(weights.values()))])
    for some in results[:2]:
        torch.testing.assert_close(some, results[2], rtol=1e-12, atol=1e-13)
    assert most[0] <= most[1] <= most[2]
    assert most[0] < most[2]


@KINDS
def test_weights_that_are_held_fixed_have_no_gradient(kind: int) -> None:
    weights, loss = losses(Task("D_3"))[kind]
    expected = dict(
        zip(weights, torch.autograd.grad(loss(weights).sum(), list(weights.values())), strict=True)
    )
    for free in weights:
        held = {n: w if n == free else w.detach() for n, w in weights.items()}
        (found,) = torch.autograd.grad(loss(held).sum(), weights[free])
        torch.testing.assert_close(found, expected[free], rtol=1e-12, atol=1e-13)
    fixed = {name: weight.detach() for name, weight in weights.items()}
    assert not loss(fixed).requires_grad


def test_a_matrix_that_two_elements_do_not_need_has_gradient_zero() -> None:
    task = Task("D_3")
    weights = task.recurrent_weights()
    held = {n: w if n == "W_mix" else w.detach() for n, w in weights.items()}
    (found,) = torch.autograd.grad(task.recurrent_loss(held, 2, True).sum(), weights["W_mix"])
    assert not found.any()


@KINDS
def test_no_gradient_is_computed_where_none_is_wanted(
    kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, loss = losses(Task("D_3"))[kind]
    expected = loss(weights)

    def fail(*_: object, **__: object) -> None:
        pytest.fail("a gradient was computed")

    monkeypatch.setattr(torch.autograd, "grad", fail)
    with torch.no_grad():
        found = loss(weights)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["C_6", "D_3"])
def test_a_loss_in_single_precision_keeps_its_digits_near_zero(name: str) -> None:
    """Neurons that multiply the signs of three elements, and the same slightly off.

    z_1 z_2 z_3 is the sum of a b (z_1 + a z_2 + b z_3)^3 / 24 over the signs a and b. A difference
    of terms near 1 that are rounded to single precision would be off by some 1e-7.
    """
    signs = {"C_6": [1, -1] * 3, "D_3": [1] * 3 + [-1] * 3}[name]
    x = torch.tensor(signs, dtype=torch.float64)
    task = Task(name, x)
    choices = torch.tensor([[1.0, a, b] for a in (1, -1) for b in (1, -1)], dtype=torch.float64)
    W_in = torch.einsum("ij,p->jip", choices, x / 6).unsqueeze(0)
    W_out = torch.outer(x, choices.prod(1) / 24).unsqueeze(0)
    exact = task.power_loss({"W_in": W_in, "W_out": W_out}, 3)
    assert abs(float(exact[0])) < 1e-14
    for size in (1e-2, 1e-4, 1e-5):
        tables = task.translates @ (W_in + size * normal(*W_in.shape, seed=7)).mT
        off = (tables.float(), W_out.float(), task.translates.float())
        found = population_loss(*off, task.table, 3)
        tables, wide, translates = (one.double() for one in off)
        g = torch.tensor(list(itertools.product(range(6), repeat=3)))
        q = torch.from_numpy(task.group.product(g.numpy()))
        z = tables[:, 0, g[:, 0]] + tables[:, 1, g[:, 1]] + tables[:, 2, g[:, 2]]
        listed = (z**3 @ wide.mT - translates[q]).square().mean((1, 2))
        assert found.dtype == torch.float32
        assert size**2 / 10 < float(listed[0]) < 100 * size**2
        tolerance = 2.0**-23 * float(listed[0]) + 1e-14
        assert float(found[0]) == pytest.approx(float(listed[0]), rel=0, abs=tolerance)


@KINDS
def test_gradients_have_the_precision_of_the_weights(kind: int) -> None:
    task = Task("Q_8")
    weights, loss = losses(task)[kind]
    single = {name: weight.detach().float().requires_grad_() for name, weight in weights.items()}
    found, expected = loss(single), loss(weights)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=3e-6, atol=0)
    gradients = torch.autograd.grad(found.sum(), list(single.values()))
    of_double = torch.autograd.grad(expected.sum(), list(weights.values()))
    for one, other in zip(gradients, of_double, strict=True):
        assert one.dtype == torch.float32
        largest = float(other.abs().max())
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-5 * largest)


def test_a_power_or_length_out_of_range_is_refused() -> None:
    task = Task("D_3")
    with pytest.raises(ValueError, match="power of at least 1; got 0"):
        task.power_loss(task.power_weights(2), 0)
    with pytest.raises(ValueError, match="length of at least 2; got 1"):
        task.recurrent_loss(task.recurrent_weights(), 1, True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@KINDS
def test_a_gpu_finds_the_same(kind: int) -> None:
    task = Task("Q_8")
    weights, loss = losses(task)[kind]
    expected = loss(weights)
    of_cpu = torch.autograd.grad(expected.sum(), list(weights.values()))
    task.table, task.translates = task.table.cuda(), task.translates.cuda()
    there = {name: weight.detach().cuda().requires_grad_() for name, weight in weights.items()}
    found = loss(there)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-12, atol=0)
    for one, other in zip(
        torch.autograd.grad(found.sum(), list(there.values())), of_cpu, strict=True
    ):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-10, atol=1e-12)
