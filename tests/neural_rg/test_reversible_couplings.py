"""The block that undoes its layers to differentiate, against the plain one and finite differences.

Weights are large enough that every non-linearity bends. Sizes cover whole chunks, single tiles and
rests, unequal nets, and patches of two sites.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from strata.neural_rg.coupling_chunks import TILES, WIDTH
from strata.neural_rg.couplings import FEW_PATCHES, CouplingStack, plain_stack
from strata.neural_rg.reversible_couplings import reversible_stack

CHUNK = TILES * WIDTH
SIZES = [  # sites, layers, hidden units of the scale, of the shift, patches
    (4, 8, 64, 64, 2 * CHUNK + WIDTH + 3),
    (4, 3, 5, 7, CHUNK),
    (2, 4, 6, 1, 2 * WIDTH),
    (8, 2, 3, 9, WIDTH + 1),
    (4, 2, 4, 4, 1),
]
every_size = pytest.mark.parametrize("size", SIZES)
both_ways = pytest.mark.parametrize("inverse", [False, True])


def normal(*shape: int, seed: int = 0, std: float = 1.0) -> Tensor:
    random = torch.Generator().manual_seed(seed + sum(shape))
    return std * torch.randn(shape, generator=random, dtype=torch.float64)


def arguments(size: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Patches and the weights of a block, as leaves."""
    sites, n_layers, hidden_scale, hidden_shift, n = size
    half = sites // 2
    made = [
        normal(sites, n),
        normal(n_layers, hidden_scale + hidden_shift, half, std=0.7),
        normal(n_layers, hidden_scale + hidden_shift, std=0.5),
        normal(n_layers, half, hidden_scale, seed=1, std=1.0 / hidden_scale**0.5),
        normal(n_layers, half, hidden_shift, seed=2, std=0.7 / hidden_shift**0.5),
        normal(n_layers, sites, std=0.5),
        normal(n_layers, half, seed=3, std=0.4),
    ]
    return [tensor.to(dtype).requires_grad_() for tensor in made]


def weighed(outputs: tuple[Tensor, Tensor]) -> Tensor:
    """A scalar in which every output has a weight of its own."""
    outer, log_det = ((normal(*part.shape, seed=5).to(part) * part).sum() for part in outputs)
    return outer + log_det


def deviation(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@every_size
@both_ways
@pytest.mark.parametrize(
    ("dtype", "of_values", "of_gradients"),
    [(torch.float64, 1e-13, 1e-12), (torch.float32, 1e-5, 1e-4)],
)
def test_values_and_gradients_are_those_of_the_plain_block(
    size: tuple[int, ...], inverse: bool, dtype: torch.dtype, of_values: float, of_gradients: float
) -> None:
    given = arguments(size, dtype)
    found, expected = (f(*given, inverse=inverse) for f in (reversible_stack, plain_stack))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        assert (one - other).abs().max() < of_values * max(1.0, other.abs().max().item())
    gradients = [torch.autograd.grad(weighed(outputs), given) for outputs in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        assert one.dtype == dtype
        assert other.norm() > 0.1
        assert deviation(one, other) < of_gradients


@both_ways
def test_gradients_are_limits_of_differences(inverse: bool) -> None:
    given = arguments((4, 3, 4, 3, 5))
    assert torch.autograd.gradcheck(lambda *a: reversible_stack(*a, inverse=inverse), given)


@both_ways
@pytest.mark.parametrize("needed", [[0], [1, 2, 3, 4, 5, 6], [4]])
def test_gradients_are_given_for_what_needs_them(inverse: bool, needed: list[int]) -> None:
    given = arguments((4, 3, 5, 4, WIDTH + 9))
    for index, tensor in enumerate(given):
        tensor.requires_grad_(index in needed)
    wanted = [given[index] for index in needed]
    found, expected = (
        torch.autograd.grad(weighed(f(*given, inverse=inverse)), wanted)
        for f in (reversible_stack, plain_stack)
    )
    for one, other in zip(found, expected, strict=True):
        assert deviation(one, other) < 1e-12


@both_ways
def test_gradient_of_one_output_alone(inverse: bool) -> None:
    """The other has no gradient at all then."""
    given = arguments((4, 3, 5, 4, 70))
    for part in (0, 1):
        found, expected = (
            torch.autograd.grad(f(*given, inverse=inverse)[part].sum(), given, allow_unused=True)
            for f in (reversible_stack, plain_stack)
        )
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other)


@both_ways
def test_patches_may_lie_anywhere_in_memory(inverse: bool) -> None:
    """And so may the gradients of the outputs."""
    _, *weights = arguments((4, 2, 3, 3, 1))
    patches = normal(WIDTH + 5, 8).t()[::2].requires_grad_()
    found, expected = (
        f(patches, *weights, inverse=inverse) for f in (reversible_stack, plain_stack)
    )
    torch.testing.assert_close(found, expected)
    gradients = [
        torch.autograd.grad(out.t().flatten() @ normal(4 * (WIDTH + 5)) + log_det.sum(), patches)
        for out, log_det in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


def saved_bytes(block: Any, given: list[Tensor], of_weights: int) -> int:
    """Memory that a block keeps for its gradient, beyond twice its weights."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        block(*given, inverse=False)
    return sum(sizes.values()) - of_weights


def test_memory_does_not_grow_with_the_number_of_layers() -> None:
    """What is kept is the outputs and the weights."""
    for n_layers in (2, 16):
        patches, *weights = arguments((4, n_layers, 8, 8, CHUNK))
        of_weights = sum(w.numel() * w.element_size() for w in weights)
        kept = saved_bytes(reversible_stack, [patches, *weights], of_weights)
        assert kept == patches.numel() * patches.element_size()
        plain = saved_bytes(plain_stack, [patches, *weights], of_weights)
        assert plain > n_layers * 16 * CHUNK * 8


def test_a_gradient_repeats_bit_by_bit() -> None:
    given = arguments((4, 4, 8, 8, 2 * CHUNK + 7), torch.float32)
    first, second = (
        torch.autograd.grad(weighed(reversible_stack(*given, inverse=False)), given)
        for _ in range(2)
    )
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_second_derivatives_are_refused() -> None:
    given = arguments((4, 2, 3, 3, 5))
    outputs, _ = reversible_stack(*given, inverse=False)
    (gradient,) = torch.autograd.grad(outputs.square().sum(), given[0], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.square().sum().backward()


def test_a_block_of_few_patches_has_second_derivatives() -> None:
    """And gradients in batches, which Jacobians take."""
    block = CouplingStack(4, 2, 3, 3, torch.Generator().manual_seed(0)).double()
    patches = normal(4, FEW_PATCHES).requires_grad_()
    outputs, _ = block.generate(patches)
    (gradient,) = torch.autograd.grad(outputs.pow(3).sum(), patches, create_graph=True)
    assert torch.autograd.grad(gradient.sum(), patches)[0].abs().max() > 0
    jacobian = torch.autograd.functional.jacobian(
        lambda one: block.generate(one)[0], patches[:, :2].detach(), vectorize=True
    )
    assert jacobian.shape == (4, 2, 4, 2)


def test_a_block_hands_its_live_weights_on() -> None:
    """Few patches and many go through the same block."""
    block = CouplingStack(4, 4, 3, 5, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(normal(*parameter.shape, std=0.5))
    patches = normal(4, 3 * FEW_PATCHES)
    for direction in (block.generate, block.infer):
        whole = direction(patches)
        parts = [direction(part) for part in patches.split(FEW_PATCHES, 1)]
        outputs, log_dets = zip(*parts, strict=True)
        torch.testing.assert_close(whole, (torch.cat(outputs, 1), torch.cat(log_dets)))
