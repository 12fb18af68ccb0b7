"""The theory against its definitions: neurons that are searched for, and equations integrated.

A neuron of unit norm has the inputs u_1, ..., u_k and the output w. What it does for a part r of
the target, U = k! E[<u_1, x_g1> ... <u_k, x_gk> <w, r_(g1 .. gk)>], is maximised here by ascent on
the sphere, over functions on the whole group and all sequences. Utilities, and the powers that such
neurons take up one after another, are held against the formulas.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from strata.group_composition.fourier import inverse_transform, powers
from strata.group_composition.group_settings import (
    Alternating,
    Cyclic,
    Dicyclic,
    Dihedral,
    GroupSettings,
    Product,
)
from strata.group_composition.groups import FiniteGroup, build_group
from strata.group_composition.irreps import Irrep, irreducible_representations
from strata.group_composition.model_settings import ModelSettings
from strata.group_composition.networks import SequentialMLP
from strata.group_composition.theory import (
    Component,
    Drop,
    components,
    drops,
    initial_norm,
    jump_step,
    max_utility,
)

N_STARTS, N_ITERATIONS, STEP = 8, 600, 0.7
C10, C11, D3, Q8, A4 = Cyclic(n=10), Cyclic(n=11), Dihedral(n=3), Dicyclic(n=2), Alternating(n=4)


@cache
def group_of(settings: GroupSettings) -> tuple[FiniteGroup, tuple[Irrep, ...]]:
    group = build_group(settings)
    return group, irreducible_representations(group)


def random_template(group: FiniteGroup, seed: int = 0) -> np.ndarray:
    template = np.random.default_rng(seed).normal(size=group.order)
    return template - template.mean()


def part_in(group: FiniteGroup, irrep: Irrep, template: np.ndarray) -> np.ndarray:
    """The part of a function in one representation, by the projector made of its character."""
    quotients = group.table[group.inverses]  # [g, h]: g^-1 h
    return irrep.multiplicity / group.order * irrep.character[quotients] @ template


def moved(group: FiniteGroup, template: np.ndarray) -> np.ndarray:
    """All translates: x_g[g h] = x[h]."""
    translates = np.zeros((group.order, group.order))
    for g in range(group.order):
        translates[g, group.table[g]] = template
    return translates


def target(group: FiniteGroup, part: np.ndarray, k: int) -> np.ndarray:
    """The part's translate by g1 ... gk: [g1, ..., gk, h]."""
    product = np.arange(group.order)
    for _ in range(k - 1):
        product = group.table[product]
    return moved(group, part)[product]


def correlations(group: FiniteGroup, template: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """E[x_g1[a_1] ... x_gk[a_k] wanted_(g1 .. gk)[h]], as an array [a_1, ..., a_k, h]."""
    x = moved(group, template)
    for axis in range(wanted.ndim - 1):
        wanted = np.moveaxis(np.tensordot(wanted, x, axes=(axis, 0)), -1, axis)
    return wanted / group.order ** (wanted.ndim - 1)


def contracted(C: np.ndarray, vectors: np.ndarray, free: int) -> np.ndarray:
    """The array C with every start's vectors [slot, start, a] in all places but one."""
    slots = [slot for slot in range(C.ndim) if slot != free]
    C = np.moveaxis(C, free, 0)
    C = np.tensordot(vectors[slots[-1]], C, axes=(1, C.ndim - 1))
    for slot in reversed(slots[:-1]):
        C = np.einsum("s...a,sa->s...", C, vectors[slot])
    return C


def best_neuron(C: np.ndarray) -> tuple[float, np.ndarray]:
    """The largest U on the unit sphere of all weights, and the vectors [slot, a] that have it.

    Steps go along the gradient, which at a maximum is along the weights themselves.
    """
    random = np.random.default_rng(7)
    k = C.ndim - 1
    theta = random.normal(size=(k + 1, N_STARTS, C.shape[0]))
    for _ in range(N_ITERATIONS):
        theta /= np.sqrt((theta**2).sum(axis=(0, 2), keepdims=True))
        gradient = np.stack([contracted(C, theta, slot) for slot in range(k + 1)])
        gradient /= np.sqrt((gradient**2).sum(axis=(0, 2), keepdims=True))
        theta += STEP * gradient
    theta /= np.sqrt((theta**2).sum(axis=(0, 2), keepdims=True))
    found = math.factorial(k) * (contracted(C, theta, 0) * theta[0]).sum(axis=1)
    return float(found.max()), theta[:, found.argmax()]


def searched_utility(group: FiniteGroup, irrep: Irrep, template: np.ndarray, k: int) -> float:
    part = part_in(group, irrep, template)
    return best_neuron(correlations(group, template, target(group, part, k)))[0]


def top_utility(found: Sequence[Component], irrep: int) -> float:
    return max(component.utility for component in found if component.irrep == irrep)


# --- utilities ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "k"),
    [*[(s, 2) for s in (C10, C11, D3, Q8, A4)], (Cyclic(n=6), 3), (D3, 3)],
    ids=lambda value: str(value) if isinstance(value, int) else f"{value.name} {value.order}",
)
def test_no_neuron_has_more_utility_than_the_best_component_and_one_has_as_much(
    settings: GroupSettings, k: int
) -> None:
    group, irreps = group_of(settings)
    template = random_template(group)
    found = components(irreps, template, k)
    for number, irrep in enumerate(irreps[1:], start=1):
        searched = searched_utility(group, irrep, template, k)
        assert top_utility(found, number) == pytest.approx(searched, rel=1e-6), irrep.name


@pytest.mark.parametrize(
    ("name", "degree", "dimension"), [("table Q_8 x C_3.txt", 2, 4), ("Q_8 x S_3", 4, 8)]
)
def test_the_utility_holds_with_two_singular_values_of_the_complex_and_quaternionic_type(
    name: str, degree: int, dimension: int, settings_of: Mapping[str, GroupSettings]
) -> None:
    if name in settings_of:
        group, irreps = group_of(settings_of[name])
    else:
        table = 6 * np.kron(build_group(Q8).table, np.ones((6, 6), np.int64))
        table += np.tile(build_group(D3).table, (8, 8))
        group = FiniteGroup(name, table, tuple(map(str, range(len(table)))), (len(table),))
        irreps = irreducible_representations(group)
    template = random_template(group, seed=3)
    found = components(irreps, template, 2)
    kinds = [(irrep.degree, irrep.dimension) for irrep in irreps]
    number = kinds.index((degree, dimension))
    assert len([c for c in found if c.irrep == number]) == 4
    searched = searched_utility(group, irreps[number], template, 2)
    assert top_utility(found, number) == pytest.approx(searched, rel=1e-6)


def test_the_formula_has_the_values_that_are_known() -> None:
    # D_3, singular values 5 for dimensions 1 and 2, k = 2.
    assert max_utility(6, 2, 5.0, 1) == pytest.approx(3.273643, abs=5e-7)
    assert max_utility(6, 2, 5.0, 2) == pytest.approx(2.314815, abs=5e-7)
    # C_p, k = 2: sqrt(2 p / 27) |x_hat|^3 / p^2.
    assert max_utility(11, 2, 3.0, 2) == pytest.approx(math.sqrt(22 / 27) * 27 / 121)


def test_nyquist_beats_a_generic_frequency_of_equal_power_by_four_at_two_elements() -> None:
    _, irreps = group_of(C10)
    g = np.arange(10)
    template = np.cos(math.pi * g) / math.sqrt(10) + np.cos(0.6 * math.pi * g + 1) / math.sqrt(5)
    assert powers(irreps, template)[[3, 5]] == pytest.approx([1, 1])
    first, second = components(irreps, template, 2)
    assert (irreps[first.irrep].name, irreps[second.irrep].name) == ("f = 5", "f = 3")
    assert first.utility / second.utility == pytest.approx(4)


# --- paths --------------------------------------------------------------------------------------


def two_valued(group: FiniteGroup, irreps: Sequence[Irrep], sigmas: Sequence[float]) -> np.ndarray:
    """A template in the last representation alone, whose Fourier matrix has these values."""
    random = np.random.default_rng(2)
    m = irreps[-1].dimension
    left, right = (np.linalg.qr(random.normal(size=(m, m)))[0] for _ in range(2))
    empty = [np.zeros((irrep.dimension, irrep.dimension)) for irrep in irreps[:-1]]
    return inverse_transform(irreps, [*empty, left @ np.diag(sigmas) @ right])


def taken_up(
    group: FiniteGroup, template: np.ndarray, missing: np.ndarray
) -> tuple[float, np.ndarray]:
    """The best neuron's utility, and what is missing once it does as much as it can."""
    utility, (u_1, u_2, w) = best_neuron(correlations(group, template, missing))
    x = moved(group, template)
    output = np.einsum("a,b,c->abc", x @ u_1, x @ u_2, w)
    return utility, missing - output * (output * missing).sum() / (output**2).sum()


def test_neurons_take_up_one_path_after_another_with_the_powers_that_are_predicted() -> None:
    group, irreps = group_of(D3)
    template = two_valued(group, irreps, (3.0, 2.0))
    missing, found = target(group, template, 2), []
    for _ in range(8):
        power = (missing**2).sum() / group.order**2
        utility, missing = taken_up(group, template, missing)
        found.append((utility, power - (missing**2).sum() / group.order**2))
    assert (missing**2).sum() < 1e-9 * (template @ template) * group.order**2
    # Two neurons for each path (o, i): one for either row of R(g_1).
    predicted = [
        (c.utility, c.power / 2) for c in components(irreps, template, 2) for _ in range(2)
    ]
    np.testing.assert_allclose(found, predicted, rtol=1e-5)


def test_what_no_neuron_can_read_is_left_after_the_last_drop() -> None:
    group, irreps = group_of(D3)
    template = two_valued(group, irreps, (3.0, 0.0))
    (drop,) = drops(components(irreps, template, 2), 6, 2)
    missing = target(group, template, 2)
    for _ in range(2):
        utility, missing = taken_up(group, template, missing)
        assert drop.utility == pytest.approx(utility)
    assert np.abs(correlations(group, template, missing)).max() < 1e-6
    assert [drop.before / 2, drop.after] == pytest.approx([(missing**2).mean()] * 2, rel=1e-5)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_paths_share_a_representations_power_as_their_enumeration_does(k: int) -> None:
    group, irreps = group_of(A4)
    sigmas = np.array([4.0, 2.0, 2.0])
    template = two_valued(group, irreps, sigmas.tolist())
    m, q = 3, 3
    expected: dict[float, float] = {}
    for index in np.ndindex(*(q,) * k):  # the output's index, then the k - 1 inner ones
        product = sigmas[index[0]] * np.prod(sigmas[list(index)])
        utility = math.factorial(k) * product / (12 * (k + 1)) ** ((k + 1) / 2)
        utility = round(float(utility / m ** ((k - 1) / 2)), 12)
        power = m * sigmas[index[0]] ** 2 / 12 / q ** (k - 1)
        expected[utility] = expected.get(utility, 0.0) + power
    found: dict[float, float] = {}
    for c in components(irreps, template, k):
        found[round(c.utility, 12)] = found.get(round(c.utility, 12), 0.0) + c.power
    np.testing.assert_allclose(sorted(found.items()), sorted(expected.items()), rtol=1e-9)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_components_hold_every_representations_power(
    k: int, group: FiniteGroup, irreps: tuple[Irrep, ...]
) -> None:
    template = random_template(group)
    total = np.zeros(len(irreps))
    for component in components(irreps, template, k):
        total[component.irrep] += component.power
    np.testing.assert_allclose(total, powers(irreps, template), atol=1e-8 * template @ template)
    staircase = drops(components(irreps, template, k), group.order, k)
    assert staircase[0].before == pytest.approx(template @ template / group.order)
    assert staircase[-1].after == 0


# --- the staircase ------------------------------------------------------------------------------


def test_drops_come_by_utility_and_leave_the_power_that_is_missing() -> None:
    _, irreps = group_of(C10)
    # |x_hat| = 8 at f = 1 (P / |G| = 1.28) and 9 at Nyquist (0.81): the smaller power comes first.
    matrices = [np.zeros((irrep.dimension, irrep.dimension)) for irrep in irreps]
    matrices[1], matrices[5] = 8 * np.eye(2), 9 * np.eye(1)
    staircase = drops(components(irreps, inverse_transform(irreps, matrices), 2), 10, 2)
    assert [drop.irreps for drop in staircase] == [(5,), (1,)]
    np.testing.assert_allclose([drop.before for drop in staircase], [2.09, 1.28])
    np.testing.assert_allclose([drop.after for drop in staircase], [1.28, 0], atol=1e-12)


@pytest.mark.parametrize(("share", "n_drops"), [(0.0, 1), (0.008, 1), (0.012, 2), (0.1, 2)])
def test_utilities_tie_that_differ_by_less_than_a_hundredth(share: float, n_drops: int) -> None:
    found = [Component(2, 1.0, 3.0, 5.0), Component(1, 1.0, 4.0, 5.0 * (1 - share))]
    staircase = drops(found, order=10, k=2)
    assert len(staircase) == n_drops
    assert [d.irreps for d in staircase] == ([(1, 2)] if n_drops == 1 else [(2,), (1,)])
    assert staircase[0].before == pytest.approx(0.7)
    assert staircase[0].after == pytest.approx(0.0 if n_drops == 1 else 0.4)
    # (P / 2 U)^(1/(k+1)) of the component of most power.
    power, utility = (4.0, 5.0 * (1 - share)) if n_drops == 1 else (3.0, 5.0)
    assert staircase[0].growth == pytest.approx((power / 2 / utility) ** (1 / 3))


@pytest.mark.parametrize(("amplitude", "n_components"), [(1e-6, 1), (1e-4, 2)])
def test_traces_of_power_are_no_component(amplitude: float, n_components: int) -> None:
    _, irreps = group_of(Product(orders=(5, 5)))
    angles = 2 * math.pi / 5 * (np.arange(25) // 5)
    template = np.cos(angles) + amplitude * np.cos(2 * angles)
    assert len(components(irreps, template, 3)) == n_components


# --- steps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3])
def test_about_one_of_the_neurons_of_a_network_exceeds_the_initial_norm(k: int) -> None:
    order, width, scale, n_networks = 10, 400, 1e-2, 60
    settings = ModelSettings(kind="SequentialMLP", hidden_dim=width, init_scale=scale)
    generators = [torch.Generator().manual_seed(seed) for seed in range(n_networks)]
    network = SequentialMLP(order, settings, generators, length=k)
    inputs = network.weight("W_in").square().sum((1, 3))
    norms = (inputs + network.weight("W_out").square().sum(1)).sqrt()
    limit = initial_norm(scale, order, width, k * order)
    assert 0.6 < float((norms > limit).float().sum(1).mean()) < 1.6


@pytest.mark.parametrize(("k", "scaled"), [(2, True), (2, False), (3, True), (3, False)])
def test_a_jump_step_is_when_the_growth_equation_reaches_half_the_power(
    k: int, scaled: bool
) -> None:
    power, utility, order, norm, lr = 3.0, 1.7, 10, 1e-2, 0.02
    drop = Drop((), power / order, 0.0, utility, (power / 2 / utility) ** (1 / (k + 1)))

    def growth(_: float, theta: np.ndarray) -> np.ndarray:
        rate = lr * theta ** (1 - k) if scaled else lr
        return 2 * rate / order * (k + 1) * utility * theta**k

    def half(_: float, theta: np.ndarray) -> float:
        return float(utility * theta[0] ** (k + 1) - power / 2)

    half.terminal = True  # type: ignore[attr-defined]
    solved = solve_ivp(growth, (0, 1e8), [norm], events=half, rtol=1e-10, atol=1e-12)
    (steps,) = solved.t_events[0]
    found = jump_step(drop, order=order, k=k, norm=norm, lr=lr, scaled=scaled)
    assert found == pytest.approx(steps, rel=1e-5)
    assert jump_step(drop, order=order, k=k, norm=2 * drop.growth, lr=lr, scaled=scaled) == 0


def test_the_loss_of_a_network_drives_its_best_neuron_as_the_growth_equation_says() -> None:
    group, irreps = group_of(D3)
    template = two_valued(group, irreps, (3.0, 2.0))
    x, wanted = moved(group, template), target(group, template, 2)
    utility, (u_1, u_2, w) = best_neuron(correlations(group, template, wanted))

    def loss(norm: float) -> float:
        preactivations = norm * ((x @ u_1)[:, None] + (x @ u_2)[None, :])
        return float(((np.multiply.outer(preactivations**2, norm * w) - wanted) ** 2).mean())

    norm, change = 1e-2, 1e-5
    descent = (loss(norm - change) - loss(norm + change)) / (2 * change)
    assert descent == pytest.approx(2 / group.order * 3 * utility * norm**2, rel=1e-4)
