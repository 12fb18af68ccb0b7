"""Inference from damaged images: hidden pixels, several starts, outliers.

The toy model has four classes, each a template of 6 x 6 dark and bright pixels, and narrow
Gaussians about the classes' states: where a state starts decides where it comes to rest.
"""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, StudentT

from strata.rgm import inference
from strata.rgm.config import GNN_FILES
from strata.rgm.factors import Mixture
from strata.rgm.free_energy import FreeEnergy
from strata.rgm.inference import DEGREES_OF_FREEDOM, REWEIGHTINGS, infer, screened
from strata.rgm.inputs import matrix_shapes
from strata.rgm.model import HierarchicalModel
from strata.rgm.relaxation import Relaxation, relax
from strata.rgm.specification import Level, MessagePassing, read_specification

SHIPPED = read_specification([Path(__file__).parents[2] / name for name in GNN_FILES])
RULE = SHIPPED.message_passing
PIXELS, CLASSES = 36, 4
LEFT = (torch.arange(PIXELS) % 6 < 3).double()
TOP_STD = 0.05
STARTS = [(starts, robust) for starts in (False, True) for robust in (False, True)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def templates() -> Tensor:
    """An image of each class."""
    bright = torch.rand(CLASSES, PIXELS, generator=generator(3)) > 0.5
    return 0.1 + 0.8 * bright.double()


def network(activations: tuple[str, ...], matrices: dict[str, Tensor]) -> HierarchicalModel:
    n_states = [len(matrices[f"a_level{i}"]) for i in range(len(activations))]
    sizes = [PIXELS, *n_states]
    levels = tuple(
        Level(i, sizes[i], sizes[i + 1], CLASSES, phi) for i, phi in enumerate(activations)
    )
    specified = replace(SHIPPED, levels=levels, image_shape=(6, 6), n_classes=CLASSES)
    shapes = matrix_shapes(specified)
    full = {k: matrices.get(k, torch.zeros(shape)) for k, shape in shapes.items()}
    return HierarchicalModel(specified, full).double().eval().requires_grad_(False)


@pytest.fixture
def toy() -> FreeEnergy:
    """Two levels of one state per class.

    Recognition looks at right halves alone: it is exact for a template, and takes a dark right half
    for class 0.
    """
    T, one = templates(), torch.eye(CLASSES, dtype=torch.float64)
    matrices = {
        "A_level0": (one - one[:, :1]) @ torch.linalg.pinv((T * (1 - LEFT)).T),
        "A_level1": one,
        "B_level0": torch.logit(T).T.contiguous(),
        "B_level1": one,
        "pi_level0": torch.full((PIXELS,), 25.0, dtype=torch.float64),
        "pi_level1": torch.full((CLASSES,), 100.0, dtype=torch.float64),
        "a_level0": one[0],
        "a_level1": torch.zeros(CLASSES),
    }
    model = network(("identity", "identity"), matrices)
    log_weights = torch.full((CLASSES,), -math.log(CLASSES), dtype=torch.float64)
    mixture = Mixture(log_weights, one, one.unsqueeze(0) / TOP_STD)
    return FreeEnergy(model, [mixture, mixture], (0.0, 1.0), 0.002 * one)


@pytest.fixture
def random_energy() -> FreeEnergy:
    """Three levels of random weights, with lateral connections and factors of every level."""
    sizes = (PIXELS, 9, 6, 5)
    matrices = {}
    for i in range(3):
        below, own = sizes[i], sizes[i + 1]
        matrices |= {
            f"A_level{i}": normal(own, below, seed=i) / math.sqrt(below),
            f"B_level{i}": normal(below, own, seed=10 + i) / math.sqrt(own),
            f"D_level{i}": normal(own, own, seed=20 + i),
            f"a_level{i}": normal(own, seed=30 + i),
            f"pi_level{i}": (normal(below, seed=40 + i)).exp(),
        }
    model = network(("silu", "silu", "identity"), matrices)
    mixtures = [
        Mixture(
            torch.log_softmax(normal(CLASSES, seed=n), 0),
            normal(CLASSES, n, seed=n + 1),
            torch.eye(n, dtype=torch.float64).expand(CLASSES, n, n),
        )
        for n in sizes[1:]
    ]
    return FreeEnergy(model, mixtures, (0.3, 0.0, 1.0), torch.eye(5, dtype=torch.float64))


def noisy_templates(n_each: int = 5, noise: float = 0.05) -> tuple[Tensor, Tensor]:
    labels = torch.arange(CLASSES).repeat(n_each)
    x = templates()[labels] + noise * normal(len(labels), PIXELS, seed=1)
    return x.clamp(0, 1), labels


# --- hidden pixels ------------------------------------------------------------------------------


@pytest.mark.parametrize(("class_starts", "robust"), STARTS)
def test_a_hidden_pixel_has_no_influence_at_all(
    random_energy: FreeEnergy, class_starts: bool, robust: bool
) -> None:
    x = torch.rand(6, PIXELS, generator=generator(), dtype=torch.float64)
    known = (torch.rand(6, PIXELS, generator=generator(1)) > 0.4).double()
    known[0, :] = 0.0  # nothing is seen of the first image
    other = torch.where(known > 0, x, 1 - 5 * x)
    one, two = (
        infer(random_energy, image, known, RULE, class_starts=class_starts, robust=robust)
        for image in (x, other)
    )
    assert all(torch.equal(a, b) for a, b in zip(one.states, two.states, strict=True))
    assert torch.equal(one.relaxation.trace, two.relaxation.trace)
    assert torch.equal(one.relaxation.evaluation.free_energy, two.relaxation.evaluation.free_energy)
    assert torch.equal(one.probabilities, two.probabilities)
    assert torch.equal(one.recognized, two.recognized)
    assert torch.equal(one.precision, two.precision)
    assert torch.equal(one.iterations, two.iterations)


def test_a_known_pixel_has_influence(random_energy: FreeEnergy) -> None:
    x = torch.rand(6, PIXELS, generator=generator(), dtype=torch.float64)
    known = (torch.rand(6, PIXELS, generator=generator(1)) > 0.4).double()
    known[0, :] = 0.0
    other = torch.where(known > 0, 1 - x, x)
    one, two = (infer(random_energy, image, known, RULE).states[0] for image in (x, other))
    moved = (one - two).abs().amax(1)
    assert float(moved[0]) == 0
    assert float(moved[1:].min()) > 1e-3


def test_several_starts_find_the_class_of_a_hidden_half_where_recognition_fails(
    toy: FreeEnergy,
) -> None:
    x, labels = noisy_templates()
    known = LEFT.expand(len(x), -1)
    alone = infer(toy, x, known, RULE)
    assert float((alone.probabilities.argmax(1) == labels).double().mean()) < 0.6
    found = infer(toy, x, known, RULE, class_starts=True)
    assert bool((found.probabilities.argmax(1) == labels).all())
    assert bool((found.relaxation.trace[-1] <= alone.relaxation.trace[-1] + 1e-6).all())
    image = toy.model.reconstruct(0, found.states[0])
    hidden = (image - templates()[labels])[:, LEFT == 0]
    assert float(hidden.abs().max()) < 0.1


def test_recognition_suffices_where_nothing_is_hidden(toy: FreeEnergy) -> None:
    x, labels = noisy_templates()
    found = infer(toy, x, torch.ones_like(x), RULE)
    assert bool((found.probabilities.argmax(1) == labels).all())


def test_the_lowest_of_all_starts_is_kept(toy: FreeEnergy) -> None:
    """Against a search that gives up no start: each class in turn, relaxed as long."""
    x, _ = noisy_templates()
    precision = toy.precisions[0] * LEFT.expand(len(x), -1)
    states = toy.model.recognize(x * LEFT)
    chosen = screened(toy, x, precision, states, RULE)
    rule = replace(RULE, tolerance=0.0)
    recognized = relax(toy, x, precision, states, rule, iterations=200).trace[-1]
    lowest = recognized
    for c in range(CLASSES):
        top = toy.mixtures[1].means[c].expand(len(x), -1)
        start = [toy.model.predict(1, top), top]
        ended = relax(toy, x, precision, start, rule, iterations=200).trace[-1]
        lowest = torch.minimum(lowest, ended)
    found = relax(toy, x, precision, chosen, rule, iterations=200).trace[-1]
    torch.testing.assert_close(found, lowest, atol=1e-3, rtol=0)
    assert float((recognized - lowest).max()) > 1


def test_a_start_from_recognition_is_kept_where_it_is_best(random_energy: FreeEnergy) -> None:
    rule = replace(RULE, max_iterations=2000, tolerance=1e-14)
    x = torch.rand(4, PIXELS, generator=generator(), dtype=torch.float64)
    precision = random_energy.precisions[0].expand(4, -1)
    at_rest = relax(random_energy, x, precision, random_energy.model.recognize(x), rule)
    chosen = screened(random_energy, x, precision, at_rest.states, RULE)
    after = random_energy.evaluate(x, precision, chosen).free_energy
    assert bool((after <= at_rest.trace[-1] + 1e-9).all())


# --- outliers -----------------------------------------------------------------------------------


class Watched:
    """What relaxations are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.precisions: list[Tensor] = []
        self.starts: list[list[Tensor]] = []
        self.iterations: list[int | None] = []
        self.found: list[Relaxation] = []
        monkeypatch.setattr(inference, "relax", self._relax)

    def _relax(
        self,
        energy: FreeEnergy,
        x: Tensor,
        precision: Tensor,
        states: list[Tensor],
        rule: MessagePassing,
        *,
        iterations: int | None = None,
    ) -> Relaxation:
        self.precisions.append(precision)
        self.starts.append(list(states))
        self.iterations.append(iterations)
        self.found.append(relax(energy, x, precision, states, rule, iterations=iterations))
        return self.found[-1]


def test_pixels_that_nothing_explains_lose_precision(
    toy: FreeEnergy, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    x = templates()
    outlier = 7
    x[:, outlier] = 1 - x[:, outlier]
    known = torch.ones_like(x)
    known[:, 11] = 0.0
    infer(toy, x, known, RULE, robust=True)
    assert watched.iterations == [RULE.max_iterations // REWEIGHTINGS] * REWEIGHTINGS
    for precision, states in zip(watched.precisions, watched.starts, strict=True):
        error = x - toy.model.predict(0, states[0])
        for i, p in ((0, outlier), (2, 20), (3, 11)):
            squared = float(error[i, p]) ** 2
            wanted = 0.0 if p == 11 else (4.0 + 1.0) / (4.0 / 25.0 + squared)
            assert float(precision[i, p]) == pytest.approx(wanted)
    last = watched.precisions[-1]
    others = [p for p in range(PIXELS) if p not in (outlier, 11)]
    assert float(last[:, outlier].max()) < 0.4 * float(last[:, others].min())
    assert bool((last[:, 11] == 0).all())


def log_density_with_outliers(toy: FreeEnergy, x: Tensor, states: list[Tensor]) -> Tensor:
    """ln p of all images and states of the toy where pixels have Student's t for errors."""
    image, below = toy.model.predict(0, states[0]), toy.model.predict(1, states[1])
    of_pixels = StudentT(DEGREES_OF_FREEDOM, image, 1 / math.sqrt(25.0))
    of_factor = MixtureSameFamily(
        Categorical(torch.ones(CLASSES, dtype=torch.float64)),
        Independent(Normal(toy.mixtures[1].means, TOP_STD), 1),
    )
    of_states = Normal(below, 1 / math.sqrt(100.0)).log_prob(states[0]).sum()
    return of_pixels.log_prob(x).sum() + of_states + of_factor.log_prob(states[1]).sum()


def test_reweighting_ends_where_the_likelihood_of_students_t_is_stationary(
    toy: FreeEnergy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "REWEIGHTINGS", 40)
    x, _ = noisy_templates(2, noise=0.3)
    rule = replace(RULE, max_iterations=40 * 200, tolerance=1e-13)
    found = infer(toy, x, torch.ones_like(x), rule, robust=True)
    steepest = []
    for states in (toy.model.recognize(x), found.states):
        leaves = [state.clone().requires_grad_() for state in states]
        gradients = torch.autograd.grad(log_density_with_outliers(toy, x, leaves), leaves)
        steepest.append(max(float(gradient.abs().max()) for gradient in gradients))
    assert steepest[1] < 1e-3 * steepest[0]


def test_outliers_move_the_states_less_than_they_move_gaussian_ones(toy: FreeEnergy) -> None:
    x = templates()
    spoilt = x.clone()
    spoilt[:, ::9] = 1 - spoilt[:, ::9]
    known = torch.ones_like(x)
    clean = infer(toy, x, known, RULE).states[0]
    plain = infer(toy, spoilt, known, RULE, class_starts=True).states[0]
    robust = infer(toy, spoilt, known, RULE, class_starts=True, robust=True).states[0]
    assert float((robust - clean).norm()) < 0.7 * float((plain - clean).norm())


def test_reweighting_goes_with_any_number_of_iterations(toy: FreeEnergy) -> None:
    x = templates()
    rule = replace(RULE, max_iterations=REWEIGHTINGS - 1)
    found = infer(toy, x, torch.ones_like(x), rule, robust=True)
    assert found.iterations.tolist() == [REWEIGHTINGS] * CLASSES  # one each
    assert bool((found.relaxation.trace[1] <= found.relaxation.trace[0]).all())


# --- what is reported ---------------------------------------------------------------------------


@pytest.mark.parametrize(("class_starts", "robust"), STARTS)
def test_probabilities_are_the_posterior_of_the_categories_given_the_top_states(
    random_energy: FreeEnergy, class_starts: bool, robust: bool
) -> None:
    x = torch.rand(5, PIXELS, generator=generator(), dtype=torch.float64)
    found = infer(
        random_energy, x, torch.ones_like(x), RULE, class_starts=class_starts, robust=robust
    )
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(5, dtype=torch.float64))
    assert bool((found.probabilities >= 0).all())
    mixture = random_energy.mixtures[-1]
    squared = torch.cdist(found.states[-1], mixture.means).square()  # its precision is the identity
    expected = torch.softmax(mixture.log_weights - 0.5 * squared, 1)
    torch.testing.assert_close(found.probabilities, expected)


@pytest.mark.parametrize(("class_starts", "robust"), STARTS)
def test_the_free_energy_never_rises(
    random_energy: FreeEnergy, class_starts: bool, robust: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in what is reported nor in any relaxation before it, by their states."""
    watched = Watched(monkeypatch)
    x = torch.rand(5, PIXELS, generator=generator(), dtype=torch.float64)
    infer(random_energy, x, torch.ones_like(x), RULE, class_starts=class_starts, robust=robust)
    for start, precision, found in zip(
        watched.starts, watched.precisions, watched.found, strict=True
    ):
        images = x.repeat_interleave(len(precision) // len(x), 0)
        first, last = (
            random_energy.evaluate(images, precision, states).free_energy
            for states in (start, found.states)
        )
        assert bool((last < first).all())
        assert float(found.trace.diff(dim=0).max()) <= 0


@pytest.mark.parametrize(("class_starts", "robust"), STARTS)
def test_the_last_relaxation_is_reported_from_its_begin_to_its_end(
    random_energy: FreeEnergy, class_starts: bool, robust: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    x = torch.rand(5, PIXELS, generator=generator(), dtype=torch.float64)
    known = (torch.rand(5, PIXELS, generator=generator(1)) > 0.4).double()
    found = infer(random_energy, x, known, RULE, class_starts=class_starts, robust=robust)
    assert len(watched.found) == 2 * class_starts + (REWEIGHTINGS if robust else 1)
    assert found.relaxation is watched.found[-1]
    assert all(torch.equal(a, b) for a, b in zip(found.begin, watched.starts[-1], strict=True))
    assert torch.equal(found.precision, watched.precisions[-1])
    for states, at in ((found.begin, 0), (found.states, -1)):
        free_energy = random_energy.evaluate(x, found.precision, states).free_energy
        torch.testing.assert_close(found.relaxation.trace[at], free_energy)


@pytest.mark.parametrize(("class_starts", "robust"), STARTS)
def test_the_free_energy_at_recognition_is_that_before_anything_was_inferred(
    random_energy: FreeEnergy, class_starts: bool, robust: bool
) -> None:
    """Before other starts are tried and before any pixel lost precision."""
    x = torch.rand(5, PIXELS, generator=generator(), dtype=torch.float64)
    known = (torch.rand(5, PIXELS, generator=generator(1)) > 0.4).double()
    found = infer(random_energy, x, known, RULE, class_starts=class_starts, robust=robust)
    precision = random_energy.precisions[0] * known
    states = random_energy.model.recognize(x * known)
    expected = random_energy.evaluate(x, precision, states).free_energy
    torch.testing.assert_close(found.recognized, expected)
    begins_there = torch.allclose(found.relaxation.trace[0], expected)
    assert begins_there == (not class_starts and not robust)


@pytest.mark.parametrize(("class_starts", "robust"), STARTS)
def test_iterations_count_screening_and_all_relaxations(
    random_energy: FreeEnergy, class_starts: bool, robust: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    x = torch.rand(12, PIXELS, generator=generator(), dtype=torch.float64)
    found = infer(
        random_energy, x, torch.ones_like(x), RULE, class_starts=class_starts, robust=robust
    )
    n_screening = 2 * class_starts
    assert watched.iterations[:n_screening] == [10, 30][:n_screening]
    expected = torch.full((12,), 40 * class_starts)
    for relaxation in watched.found[n_screening:]:
        expected = expected + relaxation.iterations
    assert torch.equal(found.iterations, expected)
    assert len(found.iterations.unique()) > 1  # some images are at rest before others


@pytest.mark.parametrize(("class_starts", "robust"), STARTS)
def test_what_is_inferred_of_an_image_does_not_depend_on_the_others(
    random_energy: FreeEnergy, class_starts: bool, robust: bool
) -> None:
    x = torch.rand(6, PIXELS, generator=generator(), dtype=torch.float64)
    known = torch.ones_like(x)
    how = {"class_starts": class_starts, "robust": robust}
    together = infer(random_energy, x, known, RULE, **how)
    for i in range(6):
        one = slice(i, i + 1)
        alone = infer(random_energy, x[one], known[one], RULE, **how)
        for a, b in zip(alone.states, together.states, strict=True):
            torch.testing.assert_close(a, b[one], rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(alone.probabilities, together.probabilities[one])
        assert torch.equal(alone.iterations, together.iterations[one])
    assert len(together.iterations.unique()) > 1  # some are at rest before others
