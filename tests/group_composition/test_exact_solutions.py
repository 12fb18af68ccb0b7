"""Exact weights against the definitions of the networks, over all sequences of a group.

Forward passes, translates and products are written here from their definitions. An error is the
squared error over the squared target, both summed over sequences and elements.
"""

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from strata.group_composition.exact_solutions import (
    exact_weights,
    has_exact_solution,
    irreps_with_power,
    singular_irreps,
    width,
    width_of,
)
from strata.group_composition.fourier import powers
from strata.group_composition.group_settings import (
    Alternating,
    Cyclic,
    Dicyclic,
    Dihedral,
    GroupSettings,
    Heisenberg,
    Octahedral,
    Product,
    Symmetric,
)
from strata.group_composition.groups import FiniteGroup, build_group
from strata.group_composition.irreps import Irrep, irreducible_representations

MAX_SEQUENCES = 20_000
SAMPLED = 2_000
ROUNDING = 1e-24

MLP, NET, RNN, TREE = "SequentialMLP", "TwoLayerNet", "QuadraticRNN", "TreeMLP"
C2, C6, C7, C10, C11, C100 = (Cyclic(n=n) for n in (2, 6, 7, 10, 11, 100))
C5xC5, C4xC4 = Product(orders=(5, 5)), Product(orders=(4, 4))
D3, D5, Q8, DIC3 = Dihedral(n=3), Dihedral(n=5), Dicyclic(n=2), Dicyclic(n=3)
H3, A4, A5, S3 = Heisenberg(p=3), Alternating(n=4), Alternating(n=5), Symmetric(n=3)
CUBE = Octahedral()

CASES = [
    *[(settings, MLP, 2) for settings in (C10, C11, C5xC5, D3, D5, CUBE, Q8, DIC3, H3, A4, A5)],
    *[(settings, MLP, 3) for settings in (C2, C10, C11, C4xC4, S3, Q8)],
    (C7, MLP, 4),
    (C6, MLP, 5),
    *[(settings, NET, 2) for settings in (C10, D3)],
    *[(C11, RNN, k) for k in range(2, 9)],
    *[(settings, RNN, 4) for settings in (C10, C4xC4, D3, Q8, H3)],
    *[(C10, TREE, k) for k in range(2, 12)],
    *[(settings, TREE, k) for settings in (D3, Q8, H3) for k in (2, 3, 4, 5, 8)],
]


# --- definitions --------------------------------------------------------------------------------


@cache
def group_of(settings: GroupSettings) -> tuple[FiniteGroup, tuple[Irrep, ...]]:
    group = build_group(settings)
    return group, irreducible_representations(group)


def random_template(group: FiniteGroup, seed: int = 0) -> np.ndarray:
    template = np.random.default_rng(seed).normal(size=group.order)
    return template - template.mean()


def function_of(irrep: Irrep, seed: int = 0) -> np.ndarray:
    """A random function whose only part is in this irrep: a combination of R's elements."""
    A = np.random.default_rng(seed).normal(size=irrep.matrices.shape[1:])
    return np.einsum("gab,ab->g", irrep.matrices, A)


def translates(group: FiniteGroup, template: np.ndarray) -> np.ndarray:
    """x_g[g h] = x[h]."""
    moved = np.zeros((group.order, group.order))
    for g in range(group.order):
        moved[g, group.table[g]] = template
    return moved


def sequences(order: int, k: int) -> np.ndarray:
    if order**k <= MAX_SEQUENCES:
        return np.array(list(itertools.product(range(order), repeat=k)))
    return np.random.default_rng(5).integers(0, order, (SAMPLED, k))


def outputs(
    weights: dict[str, np.ndarray], x: Sequence[np.ndarray], model: str, transform: str
) -> list[np.ndarray]:
    """The network's output [sequence, element]; of the recurrent network, after each element."""
    W = weights
    if model in (MLP, NET):
        total = sum(x_j @ W_j.T for x_j, W_j in zip(x, W["W_in"], strict=True))
        return [total ** len(x) @ W["W_out"].T]
    if model == TREE:
        return [tree_output(W, x)]
    states = [transformed(x[0] @ W["W_in"].T, x[1] @ W["W_drive"].T, transform)]
    for x_t in x[2:]:
        states.append(transformed(states[-1] @ W["W_mix"].T, x_t @ W["W_drive"].T, transform))
    return [h @ W["W_out"].T for h in states]


def transformed(a: np.ndarray, b: np.ndarray, transform: str) -> np.ndarray:
    return a * b if transform == "multiplicative" else (a + b) ** 2


def tree_output(W: dict[str, np.ndarray], x: Sequence[np.ndarray]) -> np.ndarray:
    raw = list(x)
    pairs = zip(raw[::2], raw[1::2], strict=False)
    items = [(a @ W["W_left"].T + b @ W["W_right"].T) ** 2 for a, b in pairs]
    late = raw[-1] if len(raw) % 2 else None
    level = 1
    while len(items) > 1 or late is not None:
        level += 1
        merged = []
        while len(items) >= 2:
            left, right, *items = items
            sums = left @ W[f"M_left_{level}"].T + right @ W[f"M_right_{level}"].T
            merged.append(sums**2)
        if items and late is not None:
            sums = items.pop() @ W[f"M_left_{level}"].T + late @ W[f"W_late_{level}"].T
            merged.append(sums**2)
            late = None
        items = merged + items
    return items[0] @ W["W_out"].T


def relative_errors(
    weights: dict[str, np.ndarray],
    group: FiniteGroup,
    template: np.ndarray,
    model: str,
    k: int,
    transform: str = "quadratic",
) -> list[float]:
    """One error; of the recurrent network, one after each element from the second on."""
    tokens = sequences(group.order, k)
    moved = translates(group, template)
    found = outputs(weights, [moved[g] for g in tokens.T], model, transform)
    prefixes = [tokens[:, 0]]
    for g in tokens.T[1:]:
        prefixes.append(group.table[prefixes[-1], g])
    targets = [moved[product] for product in prefixes[-len(found) :]]
    return [
        float(((y - target) ** 2).sum() / (target**2).sum())
        for y, target in zip(found, targets, strict=True)
    ]


def without_neuron(weights: dict[str, np.ndarray], neuron: int) -> dict[str, np.ndarray]:
    """Take it out of every axis that is as long as there are neurons."""
    d = weights["W_out"].shape[1]
    cut = {}
    for name, whole in weights.items():
        for axis in (axis for axis, length in enumerate(whole.shape) if length == d):
            whole = np.delete(whole, neuron, axis)
        cut[name] = whole
    return cut


# --- zero error ---------------------------------------------------------------------------------


def name_of(value: object) -> str:
    return group_of(value)[0].name if isinstance(value, GroupSettings) else str(value)


@pytest.mark.parametrize(("settings", "model", "k"), CASES, ids=name_of)
def test_the_error_is_zero(settings: GroupSettings, model: str, k: int) -> None:
    group, irreps = group_of(settings)
    template = random_template(group)
    weights = exact_weights(group, irreps, template, model, k)
    assert weights["W_out"].shape[1] == width(irreps, powers(irreps, template), model, k)
    errors = relative_errors(weights, group, template, model, k)
    assert len(errors) == (k - 1 if model == RNN else 1)
    assert max(errors) < ROUNDING


@pytest.mark.parametrize(
    ("settings", "k"), [(C10, 2), (C10, 6), (C11, 9), (D3, 4), (Q8, 4), (H3, 3)], ids=name_of
)
def test_the_error_of_neurons_that_multiply_is_zero(settings: GroupSettings, k: int) -> None:
    group, irreps = group_of(settings)
    template = random_template(group)
    weights = exact_weights(group, irreps, template, RNN, k, "multiplicative")
    errors = relative_errors(weights, group, template, RNN, k, "multiplicative")
    assert max(errors) < ROUNDING
    quadratic = exact_weights(group, irreps, template, RNN, k)
    assert 2 * weights["W_out"].shape[1] == quadratic["W_out"].shape[1]


def quaternions_times_triangle() -> FiniteGroup:
    """Q_8 x S_3, with a quaternionic representation of real dimension 8, which holds two times."""
    (first, _), (second, _) = group_of(Q8), group_of(S3)
    n = second.order
    table = first.table[:, None, :, None] * n + second.table[None, :, None, :]
    order = first.order * n
    labels = tuple(str(g) for g in range(order))
    return FiniteGroup("Q_8 x S_3", table.reshape(order, order), labels, (order,))


@pytest.mark.parametrize(("model", "k"), [(MLP, 2), (RNN, 3), (TREE, 4), (TREE, 5)])
def test_the_error_is_zero_for_a_quaternionic_type_of_multiplicity_two(model: str, k: int) -> None:
    group = quaternions_times_triangle()
    irreps = irreducible_representations(group)
    large = max(irreps, key=lambda irrep: irrep.dimension)
    assert (large.dimension, large.degree) == (8, 4)
    assert width_of(large, model, k) == 3 * 4**3
    template = function_of(large)
    weights = exact_weights(group, irreps, template, model, k)
    assert weights["W_out"].shape[1] == 3 * 4**3
    assert max(relative_errors(weights, group, template, model, k)) < ROUNDING


@pytest.mark.parametrize("model", [MLP, RNN, TREE])
@pytest.mark.parametrize("settings", [C10, CUBE, Q8, H3], ids=name_of)
def test_a_template_of_few_irreps_takes_their_neurons_only(
    settings: GroupSettings, model: str
) -> None:
    group, irreps = group_of(settings)
    chosen = (irreps[1], irreps[-1])
    template = function_of(chosen[0], 1) + 3 * function_of(chosen[1], 2)
    assert irreps_with_power(irreps, powers(irreps, template)) == chosen
    k = 2 if model == MLP else 3
    weights = exact_weights(group, irreps, template, model, k)
    assert weights["W_out"].shape[1] == sum(width_of(irrep, model, k) for irrep in chosen)
    assert max(relative_errors(weights, group, template, model, k)) < ROUNDING


@pytest.mark.parametrize("model", [MLP, RNN, TREE])
def test_a_mean_is_one_more_irrep_of_real_type(model: str) -> None:
    group, irreps = group_of(D3)
    template = random_template(group)
    without = exact_weights(group, irreps, template, model, 3)
    weights = exact_weights(group, irreps, template + 0.5, model, 3)
    more = weights["W_out"].shape[1] - without["W_out"].shape[1]
    assert more == (4 if model == MLP else 2)
    assert max(relative_errors(weights, group, template + 0.5, model, 3)) < ROUNDING


@pytest.mark.parametrize(
    ("settings", "model", "k", "transform"),
    [
        (C10, MLP, 2, "quadratic"),
        (C7, MLP, 3, "quadratic"),
        (D3, MLP, 3, "quadratic"),
        (Q8, MLP, 2, "quadratic"),
        (C10, RNN, 3, "quadratic"),
        (H3, RNN, 2, "quadratic"),
        (D5, RNN, 3, "multiplicative"),
        (Q8, TREE, 3, "quadratic"),
        (C10, TREE, 4, "quadratic"),
    ],
    ids=name_of,
)
def test_no_neuron_can_be_left_out(
    settings: GroupSettings, model: str, k: int, transform: str
) -> None:
    group, irreps = group_of(settings)
    template = random_template(group)
    weights = exact_weights(group, irreps, template, model, k, transform)
    d = weights["W_out"].shape[1]
    assert d not in (group.order, k)
    worst = [
        max(relative_errors(without_neuron(weights, neuron), group, template, model, k, transform))
        for neuron in range(0, d, 1 + d // 40)
    ]
    assert min(worst) > 1e-3


# --- widths, names and shapes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "model", "k", "transform", "expected"),
    [
        (C10, MLP, 2, "quadratic", 26),
        (C11, MLP, 2, "quadratic", 30),
        (C10, MLP, 3, "quadratic", 68),
        (C11, MLP, 3, "quadratic", 80),
        (C7, MLP, 4, "quadratic", 120),
        (C6, MLP, 5, "quadratic", 208),
        (C10, NET, 2, "quadratic", 26),
        (C10, RNN, 8, "quadratic", 26),
        (C11, RNN, 20, "quadratic", 30),
        (C100, RNN, 5, "quadratic", 296),
        (C100, TREE, 5, "quadratic", 296),
        (C10, RNN, 6, "multiplicative", 13),
        (C11, RNN, 9, "multiplicative", 15),
        (D3, MLP, 2, "quadratic", 1 * 2 + 8 * 2),
        (S3, MLP, 3, "quadratic", 1 * 4 + 16 * 4),
        (A5, MLP, 2, "quadratic", 2 * (27 + 27 + 64 + 125)),
        (H3, MLP, 3, "quadratic", 4 * 16 + 81 * 16),
        (H3, RNN, 3, "quadratic", 4 * 6 + 27 * 6),
        (Q8, RNN, 3, "quadratic", 3 * 2 + 8 * 3),
        (Q8, RNN, 3, "multiplicative", 3 + 12),
    ],
    ids=name_of,
)
def test_widths_are_those_of_the_formulas(
    settings: GroupSettings, model: str, k: int, transform: str, expected: int
) -> None:
    group, irreps = group_of(settings)
    power = powers(irreps, random_template(group))
    assert width(irreps, power, model, k, transform) == expected


def test_a_weak_irrep_does_not_count() -> None:
    group, irreps = group_of(C10)
    strong, weak = function_of(irreps[1]), function_of(irreps[2])
    weak *= np.linalg.norm(strong) / np.linalg.norm(weak)
    assert width(irreps, powers(irreps, strong + 2e-5 * weak), MLP, 2) == 12
    template = strong + 0.5e-5 * weak
    assert width(irreps, powers(irreps, template), MLP, 2) == 6
    weights = exact_weights(group, irreps, template, MLP, 2)
    assert weights["W_out"].shape == (10, 6)
    assert relative_errors(weights, group, template, MLP, 2)[0] < 1e-10


@pytest.mark.parametrize(
    ("k", "upper"),
    [
        (2, ()),
        (3, ("M_left_2", "W_late_2")),
        (4, ("M_left_2", "M_right_2")),
        (5, ("M_left_2", "M_right_2", "M_left_3", "W_late_3")),
        (6, ("M_left_2", "M_right_2", "M_left_3", "M_right_3")),
        (7, ("M_left_2", "M_right_2", "W_late_2", "M_left_3", "M_right_3")),
        (8, ("M_left_2", "M_right_2", "M_left_3", "M_right_3")),
        (9, ("M_left_2", "M_right_2", "M_left_3", "M_right_3", "M_left_4", "W_late_4")),
    ],
)
def test_a_tree_has_the_weights_of_its_levels(k: int, upper: tuple[str, ...]) -> None:
    group, irreps = group_of(C10)
    weights = exact_weights(group, irreps, random_template(group), TREE, k)
    expected = {"W_left": (26, 10), "W_right": (26, 10), "W_out": (10, 26)}
    expected |= {name: (26, 26) if name[0] == "M" else (26, 10) for name in upper}
    assert {name: array.shape for name, array in weights.items()} == expected


@pytest.mark.parametrize(
    ("model", "k", "shapes"),
    [
        (MLP, 3, {"W_in": (3, 70, 6), "W_out": (6, 70)}),
        (NET, 2, {"W_in": (2, 70, 6), "W_out": (6, 70)}),
        (RNN, 3, {"W_in": (70, 6), "W_drive": (70, 6), "W_mix": (70, 70), "W_out": (6, 70)}),
        (TREE, 3, {"W_left": (70, 6), "W_right": (70, 6), "W_out": (6, 70),
                   "M_left_2": (70, 70), "W_late_2": (70, 6)}),
    ],
)  # fmt: skip
def test_neurons_that_are_not_needed_are_zero(
    model: str, k: int, shapes: dict[str, tuple[int, ...]]
) -> None:
    group, irreps = group_of(D3)
    template = random_template(group)
    weights = exact_weights(group, irreps, template, model, k, width=70)
    assert {name: array.shape for name, array in weights.items()} == shapes
    assert all(array.dtype == np.float64 for array in weights.values())
    assert max(relative_errors(weights, group, template, model, k)) < ROUNDING
    least = exact_weights(group, irreps, template, model, k)
    for name, array in least.items():
        kept = tuple(slice(length) for length in array.shape)
        np.testing.assert_array_equal(weights[name][kept], array)
        assert np.count_nonzero(weights[name]) == np.count_nonzero(array)


# --- templates without a solution, wrong arguments ----------------------------------------------


@pytest.mark.parametrize("settings", [D3, A5, H3], ids=name_of)
def test_a_singular_fourier_matrix_is_refused_by_name(settings: GroupSettings) -> None:
    group, irreps = group_of(settings)
    good, bad = irreps[1], irreps[-1]
    template = function_of(good) + bad.matrices[:, 0, 0]
    assert singular_irreps(irreps, template) == (bad,)
    assert not has_exact_solution(irreps, template)
    with pytest.raises(ValueError, match=f"irreps {bad.name} of {group.name}"):
        exact_weights(group, irreps, template, RNN, 3)
    generic = random_template(group)
    assert singular_irreps(irreps, generic) == ()
    assert has_exact_solution(irreps, generic)


def test_a_nearly_singular_fourier_matrix_has_a_solution() -> None:
    group, irreps = group_of(D3)
    last = irreps[-1].matrices
    template = last[:, 0, 0] + 1e-4 * last[:, 1, 1]
    assert has_exact_solution(irreps, template)
    weights = exact_weights(group, irreps, template, RNN, 4)
    assert max(relative_errors(weights, group, template, RNN, 4)) < 1e-12


def test_a_template_of_zeros_has_no_solution() -> None:
    group, irreps = group_of(D3)
    zeros = np.zeros(6)
    assert singular_irreps(irreps, zeros) == ()
    assert not has_exact_solution(irreps, zeros)
    with pytest.raises(ValueError, match="all zero"):
        exact_weights(group, irreps, zeros, MLP, 2)


def test_wrong_arguments_are_refused() -> None:
    group, irreps = group_of(C10)
    template = random_template(group)
    with pytest.raises(ValueError, match="takes 26 neurons; got a width of 25"):
        exact_weights(group, irreps, template, MLP, 2, width=25)
    with pytest.raises(ValueError, match=r"template of 10 values.*got 9"):
        exact_weights(group, irreps, template[1:], MLP, 2)
    with pytest.raises(ValueError, match="TwoLayerNet composes 2 elements; got k = 3"):
        exact_weights(group, irreps, template, NET, 3)
    with pytest.raises(ValueError, match="2 or more elements; got k = 1"):
        width(irreps, powers(irreps, template), RNN, 1)
    with pytest.raises(ValueError, match="'multiplicative' for TreeMLP"):
        width_of(irreps[1], TREE, 3, "multiplicative")
