"""Templates of every kind on every kind of group: the powers that were asked for, zero mean, seeds.

Powers are read with the transform over the group's irreducible representations, on cyclic groups
and their products with numpy's FFT as well. Sampled images are held against torch and scipy,
distances of words against shortest paths in the Cayley graph.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy.interpolate import interp1d
from scipy.sparse.csgraph import shortest_path
from scipy.stats import chisquare, kstest

from strata.group_composition import templates
from strata.group_composition.fourier import fourier_transform, inverse_transform, powers
from strata.group_composition.group_settings import (
    Alternating,
    Cyclic,
    Dicyclic,
    Dihedral,
    GroupSettings,
    Heisenberg,
    Octahedral,
    Product,
)
from strata.group_composition.groups import FiniteGroup, build_group
from strata.group_composition.irreps import Irrep, irreducible_representations
from strata.group_composition.template_settings import (
    CustomFourierTemplate,
    FourierTemplate,
    GaussianTemplate,
    MNISTTemplate,
    OneHotTemplate,
    TemplateSettings,
)

GROUPS: dict[str, GroupSettings] = {
    "C_11": Cyclic(n=11),
    "C_10": Cyclic(n=10),
    "C_5 x C_5": Product(orders=(5, 5)),
    "C_4 x C_6": Product(orders=(4, 6)),
    "C_2 x C_3 x C_5": Product(orders=(2, 3, 5)),
    "D_5": Dihedral(n=5),
    "O": Octahedral(),
    "A_5": Alternating(n=5),
    "Q_8": Dicyclic(n=2),
    "H_3": Heisenberg(p=3),
}
KINDS: dict[str, TemplateSettings] = {
    "mnist": MNISTTemplate(),
    "mnist, unit variance": MNISTTemplate(unit_variance=True),
    "fourier": FourierTemplate(n_freqs=2),
    "gaussian": GaussianTemplate(),
    "onehot": OneHotTemplate(height=3.0),
    "custom_fourier": CustomFourierTemplate(powers=(0.0, 2.0, 5.0)),
}
RANDOM_KINDS = ("mnist", "mnist, unit variance", "fourier", "gaussian")
OF_UNIT_VARIANCE = ("mnist, unit variance", "fourier", "gaussian")


@dataclass(frozen=True)
class Case:
    """A group and its representations."""

    group: FiniteGroup
    irreps: tuple[Irrep, ...]

    def template(self, settings: TemplateSettings, seed: int = 0) -> np.ndarray:
        random = np.random.default_rng(seed)
        return templates.build_template(
            settings, self.group, self.irreps, generator=random, images=pictures()
        )

    def powers(self, template: np.ndarray) -> np.ndarray:
        return powers(self.irreps, template)


@cache
def case(name: str) -> Case:
    group = build_group(GROUPS[name])
    return Case(group, irreducible_representations(group))


@cache
def pictures() -> np.ndarray:
    """Smooth blobs and noise, as dark as digits at the edges."""
    random = np.random.default_rng(7)
    grid = np.arange(28)
    centres = random.uniform(9, 19, (6, 2, 1))
    blobs = np.exp(-((grid - centres) ** 2) / 30)
    images = 200 * blobs[:, 0, :, None] * blobs[:, 1, None, :]
    images[:, 4:24, 4:24] += random.uniform(0, 50, (6, 20, 20))
    return images.astype(np.uint8)


def complaint_about(settings: TemplateSettings, name: str, **arguments: Any) -> str:
    chosen = case(name)
    with pytest.raises(ValueError, match=r"\w") as refused:
        templates.build_template(
            settings,
            chosen.group,
            chosen.irreps,
            generator=np.random.default_rng(0),
            **arguments,
        )
    return str(refused.value)


# --- what holds for all ---------------------------------------------------------------------------


def test_there_is_a_constructor_for_every_kind() -> None:
    expected = {member.model_fields["name"].default for member in get_args(TemplateSettings)}
    assert set(templates.TEMPLATES) == expected == {s.name for s in KINDS.values()}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("kind", KINDS)
def test_templates_have_zero_mean_and_follow_their_seed(name: str, kind: str) -> None:
    chosen = case(name)
    template = chosen.template(KINDS[kind])
    assert template.shape == (chosen.group.order,)
    assert template.dtype == np.float64
    assert abs(template.mean()) < 1e-15 * chosen.group.order
    assert template.std() > 1e-3
    np.testing.assert_array_equal(template, chosen.template(KINDS[kind]))
    others = [chosen.template(KINDS[kind], seed) for seed in range(1, 9)]  # some differ by a sign
    is_random = not all(np.allclose(template, other, atol=1e-6) for other in others)
    assert is_random == (kind in RANDOM_KINDS)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("kind", OF_UNIT_VARIANCE)
def test_unit_variance_means_powers_that_sum_to_the_order(name: str, kind: str) -> None:
    chosen = case(name)
    template = chosen.template(KINDS[kind], seed=2)
    assert template.std() == pytest.approx(1.0, abs=1e-12)
    found = chosen.powers(template)
    assert found[0] == pytest.approx(0.0, abs=1e-20)
    assert found.sum() == pytest.approx(chosen.group.order)


def test_an_image_is_asked_for_by_its_digit() -> None:
    for images in (None, pictures()[:0]):
        assert "digit 4; got none" in complaint_about(KINDS["mnist"], "C_11", images=images)


# --- images ---------------------------------------------------------------------------------------


def resized_by_torch(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    batch = torch.from_numpy(image)[None, None]
    mode = {"mode": "bilinear", "align_corners": False}
    return torch.nn.functional.interpolate(batch, shape, **mode)[0, 0].numpy()


def curve_by_interpolation(image: np.ndarray, n_points: int) -> np.ndarray:
    spline = interp1d(np.linspace(0, 1, 28), image.mean(axis=0), kind="cubic")
    return spline(np.linspace(0, 1, n_points))


@pytest.mark.parametrize("orders", [(10, 10), (5, 40), (28, 28), (3, 2), (33, 7)])
def test_on_two_cyclic_factors_an_image_is_resized_as_torch_does(orders: tuple[int, int]) -> None:
    image = pictures()[0] / 255
    found = templates.resized(image, orders)
    np.testing.assert_allclose(found, resized_by_torch(image, orders), atol=1e-12)


@pytest.mark.parametrize("n_points", [2, 11, 28, 55, 100])
def test_on_a_cyclic_group_an_image_becomes_a_spline_through_the_means_of_its_columns(
    n_points: int,
) -> None:
    image = pictures()[0] / 255
    found = templates.column_profile(image, n_points)
    np.testing.assert_allclose(found, curve_by_interpolation(image, n_points), atol=1e-12)
    if n_points == 55:
        np.testing.assert_allclose(found[::2], image.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("name", GROUPS)
def test_groups_with_two_axes_see_the_image_and_others_its_curve(name: str) -> None:
    chosen = case(name)
    found = chosen.template(MNISTTemplate(), seed=3)
    expected = []
    for image in pictures() / 255:
        if name in ("C_5 x C_5", "C_4 x C_6", "D_5"):
            axes = {"C_5 x C_5": (5, 5), "C_4 x C_6": (4, 6), "D_5": (2, 5)}[name]
            expected.append(resized_by_torch(image, axes).ravel())
        else:
            expected.append(curve_by_interpolation(image, chosen.group.order))
    assert sum(np.allclose(found, x - x.mean(), atol=1e-12) for x in expected) == 1


def test_bytes_and_numbers_give_the_same_template_and_every_image_may_be_drawn() -> None:
    chosen = case("C_11")
    drawn = []
    for seed in range(60):
        made = [
            templates.build_template(
                MNISTTemplate(),
                chosen.group,
                chosen.irreps,
                generator=np.random.default_rng(seed),
                images=images,
            )
            for images in (pictures(), pictures() / 255)
        ]
        np.testing.assert_allclose(*made, atol=1e-14)
        drawn.append(made[0])
    assert len(np.unique(np.round(drawn, 9), axis=0)) == len(pictures())


def test_an_image_that_is_the_same_everywhere_is_refused() -> None:
    dark = np.zeros((1, 28, 28), np.uint8)
    assert "same value at all 11 points that C_11" in complaint_about(
        MNISTTemplate(unit_variance=True), "C_11", images=dark
    )


# --- few frequencies ------------------------------------------------------------------------------


def asked_powers(n_freqs: int, order: int) -> np.ndarray:
    """Powers from 100 to 10, scaled so that they sum to the order: unit variance."""
    asked = np.linspace(100.0, 10.0, n_freqs)
    return asked * order / asked.sum()


FEW = {
    "C_11": ((1, 3, 5), None),
    "C_10": ((1, 2, 4), None),
    "C_5 x C_5": ((1, 4, 12), 12),
    "C_4 x C_6": ((1, 10), 10),
    "D_5": ((1, 3), 3),
    "O": ((1, 4), 4),
    "A_5": ((1, 4), 4),
    "Q_8": ((1, 4), 4),
    "H_3": ((1, 5), 5),
}


@pytest.mark.parametrize("name", FEW)
def test_powers_of_few_frequencies_fall_linearly(name: str) -> None:
    chosen = case(name)
    for n_freqs in FEW[name][0]:
        found = chosen.powers(chosen.template(FourierTemplate(n_freqs=n_freqs), seed=4))
        asked = asked_powers(n_freqs, chosen.group.order)
        np.testing.assert_allclose(np.sort(found)[::-1][:n_freqs], asked, rtol=1e-10)
        assert np.sort(found)[::-1][n_freqs:].max() < 1e-20
        if FEW[name][1] is not None:  # the order is that of the representations
            taken = [
                number
                for number, irrep in enumerate(chosen.irreps)
                if number and (irrep.frequency is None or irrep.degree == 2)
            ]
            np.testing.assert_allclose(found[taken[:n_freqs]], asked, rtol=1e-10)


@pytest.mark.parametrize("name", ["C_11", "C_10"])
def test_on_a_cyclic_group_every_order_of_frequencies_and_every_phase_is_equally_likely(
    name: str,
) -> None:
    chosen = case(name)
    n = chosen.group.order
    counts = np.zeros((3, n // 2 + 1), dtype=int)
    phases = []
    for seed in range(600):
        spectrum = np.fft.rfft(chosen.template(FourierTemplate(n_freqs=3), seed=seed))
        order = np.argsort(-np.abs(spectrum))[:3]
        counts[np.arange(3), order] += 1
        phases.append(np.angle(spectrum[order]) / (2 * np.pi) % 1)
    possible = slice(1, math.ceil(n / 2))
    assert counts[:, possible].sum() == 3 * 600  # neither the mean nor a self-conjugate frequency
    for row in counts:
        assert chisquare(row[possible]).pvalue > 1e-4
    for column in np.array(phases).T:
        assert kstest(column, "uniform").pvalue > 1e-4


def test_on_a_product_the_lowest_frequencies_are_taken() -> None:
    template = case("C_4 x C_6").template(FourierTemplate(n_freqs=4), seed=5).reshape(4, 6)
    power = np.abs(np.fft.fft2(template)) ** 2
    frequency = np.stack(np.meshgrid(np.fft.fftfreq(4, 1 / 4), np.fft.fftfreq(6, 1 / 6)), -1)
    radius = (frequency.transpose(1, 0, 2) ** 2).sum(-1)
    opposite = np.roll(np.flip(np.arange(24).reshape(4, 6), (0, 1)), 1, (0, 1))
    is_pair = opposite != np.arange(24).reshape(4, 6)
    has_power = power > 1e-15
    assert has_power.sum() == 8
    assert radius[has_power].max() <= radius[is_pair & ~has_power].min()
    assert not has_power[~is_pair].any()


@pytest.mark.parametrize("name", GROUPS)
def test_fourier_matrices_of_few_frequencies_are_multiples_of_orthogonal_ones(name: str) -> None:
    chosen = case(name)
    template = chosen.template(FourierTemplate(n_freqs=2), seed=6)
    for irrep, x_hat in zip(chosen.irreps, fourier_transform(chosen.irreps, template), strict=True):
        square = x_hat @ x_hat.T
        expected = np.trace(square) / irrep.dimension * np.eye(irrep.dimension)
        np.testing.assert_allclose(square, expected, atol=1e-10)


def test_fourier_matrices_of_a_real_representation_reach_both_signs_of_the_determinant() -> None:
    chosen = case("D_5")
    number = next(i for i, irrep in enumerate(chosen.irreps) if irrep.dimension == 2)
    signs = []
    for seed in range(40):
        template = chosen.template(FourierTemplate(n_freqs=2), seed=seed)
        x_hat = fourier_transform(chosen.irreps, template)[number]
        signs.append(float(np.sign(np.linalg.det(x_hat))))
    assert set(signs) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("name", "n_there"),
    [("C_11", 5), ("C_10", 4), ("C_5 x C_5", 12), ("D_5", 3), ("A_5", 4), ("Q_8", 4)],
)
def test_too_many_frequencies_are_refused_with_how_many_there_are(name: str, n_there: int) -> None:
    chosen = case(name)
    chosen.template(FourierTemplate(n_freqs=n_there))
    said = complaint_about(FourierTemplate(n_freqs=n_there + 1), name)
    assert f"{name} has {n_there} frequencies" in said
    assert f"n_freqs = {n_there + 1}" in said


# --- bumps ----------------------------------------------------------------------------------------


def test_a_bump_on_a_cyclic_group_is_a_periodic_gaussian() -> None:
    """Beside the point opposite to the centre, ln x has second differences -1 / sigma^2."""
    chosen = case("C_11")
    sigmas, places = [], []
    for seed in range(400):
        x = templates.sum_of_bumps(chosen.group, chosen.irreps, 1, np.random.default_rng(seed))
        assert (x > 0).all()
        log = np.log(np.roll(x, 5 - int(np.argmax(x))))
        differences = np.diff(log, 2)
        kinks = np.abs(differences - np.median(differences)) > 1e-6
        assert kinks[1:-1].sum() == 0  # the opposite point is at an end
        sigma = 1 / np.sqrt(-np.median(differences))
        sigmas.append(float(sigma))
        slope = (log[6] - log[4]) / 2
        places.append((int(np.argmax(x)) + slope * sigma**2) % 11)
    assert kstest(sigmas, "uniform", args=(0.5, 1.5)).pvalue > 1e-4
    assert kstest(places, "uniform", args=(0, 11)).pvalue > 1e-4


def test_a_bump_on_a_product_is_a_product_of_bumps_of_one_width() -> None:
    chosen = Case(group := build_group(Product(orders=(7, 9))), irreducible_representations(group))
    for seed in range(10):
        random = np.random.default_rng(seed)
        x = templates.sum_of_bumps(chosen.group, chosen.irreps, 1, random).reshape(7, 9)
        singular = np.linalg.svd(x, compute_uv=False)
        assert singular[1] < 1e-10 * singular[0]
        row, column = np.unravel_index(np.argmax(x), x.shape)
        middle = np.roll(np.log(x), (3 - row, 4 - column), (0, 1))
        curvatures = (np.diff(middle[2:5, 4], 2), np.diff(middle[3, 3:6], 2))
        np.testing.assert_allclose(*curvatures, rtol=1e-6)


def test_word_lengths_are_those_of_the_usual_generators() -> None:
    """D_5: a rotation and a reflection. Otherwise: shortest paths between neighbours."""
    rotations = np.minimum(np.arange(5), 5 - np.arange(5))
    np.testing.assert_array_equal(
        templates.word_lengths(case("D_5").group), [*rotations, *(rotations + 1)]
    )
    for name in ("O", "A_5", "Q_8", "H_3"):
        group = case(name).group
        found = templates.word_lengths(group)
        letters = np.flatnonzero(found == 1)
        assert len(letters) <= 6
        neighbours = np.zeros((group.order, group.order))
        neighbours[np.arange(group.order)[:, None], group.table[:, letters]] = 1
        np.testing.assert_array_equal(found, shortest_path(neighbours, unweighted=True)[0])


@pytest.mark.parametrize("name", ["D_5", "A_5", "Q_8"])
def test_a_bump_on_another_group_is_a_translate_of_one_at_the_identity(name: str) -> None:
    chosen = case(name)
    lengths = templates.word_lengths(chosen.group)
    centres = set()
    for seed in range(60):
        x = templates.sum_of_bumps(chosen.group, chosen.irreps, 1, np.random.default_rng(seed))
        centre = int(np.argmax(x))
        log = np.log(x[chosen.group.table[centre]])  # at c h, for all h
        sigma_squared = 0.5 / (log[0] - log[lengths == 1][0])
        assert 0.25 <= sigma_squared <= 4
        np.testing.assert_allclose(log, log[0] - lengths**2 / (2 * sigma_squared), atol=1e-9)
        centres.add(centre)
    assert len(centres) > 5


def test_bumps_add_up_with_heights_within_a_factor_of_two() -> None:
    """A bump of height h and width sigma on a long cycle has the area h sigma sqrt(2 pi)."""
    group = build_group(Cyclic(n=200))
    irreps = irreducible_representations(group)[:1]
    heights = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        (distance,) = templates._grid_distances(group, 1, random)
        sigma, height = random.uniform(0.5, 2), random.uniform(0.5, 1)
        bump = height * np.exp(-(distance**2) / (2 * sigma**2))
        x = templates.sum_of_bumps(group, irreps, 1, np.random.default_rng(seed))
        np.testing.assert_allclose(x, bump / bump.std(), atol=1e-12)
        heights.append(height)
    x = templates.sum_of_bumps(group, irreps, 12, np.random.default_rng(0))
    peaks = (x > np.roll(x, 1)) & (x >= np.roll(x, -1)) & (x > 0.1 * x.max())
    assert 4 <= peaks.sum() <= 12
    assert x[peaks].min() > 0.3 * x.max() / 2


# --- one hot, and powers by hand ------------------------------------------------------------------


@pytest.mark.parametrize("name", GROUPS)
def test_one_hot_gives_every_representation_the_power_it_has_room_for(name: str) -> None:
    chosen = case(name)
    template = chosen.template(OneHotTemplate(height=3.0))
    assert template[0] - template[1:].max() == pytest.approx(3.0)
    room = np.array([irrep.dimension * irrep.multiplicity for irrep in chosen.irreps[1:]])
    expected = 9.0 * room / chosen.group.order
    np.testing.assert_allclose(chosen.powers(template)[1:], expected, atol=1e-12)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("magnitudes", [False, True])
def test_powers_or_magnitudes_come_out_as_given(name: str, magnitudes: bool) -> None:
    chosen = case(name)
    asked = np.random.default_rng(8).uniform(0, 9, len(chosen.irreps) - 1)
    settings = CustomFourierTemplate(powers=(0.0, *map(float, asked[:-1])), magnitudes=magnitudes)
    template = chosen.template(settings)
    coefficients = fourier_transform(chosen.irreps, template)
    found = chosen.powers(template)
    assert found[-1] == pytest.approx(0.0, abs=1e-20)  # one number less than representations
    if magnitudes:
        found = np.array([np.linalg.norm(x_hat, 2) for x_hat in coefficients])
    np.testing.assert_allclose(found[1:-1], asked[:-1], rtol=1e-10)
    np.testing.assert_allclose(inverse_transform(chosen.irreps, coefficients), template, atol=1e-10)
    for x_hat in coefficients:
        np.testing.assert_allclose(x_hat, x_hat[0, 0] * np.eye(len(x_hat)), atol=1e-10)
        assert x_hat[0, 0] > -1e-10


def test_magnitudes_on_a_cyclic_group_are_those_of_the_discrete_transform() -> None:
    settings = CustomFourierTemplate(powers=(0, 8.0, 0, 5.0, 0, 9.0), magnitudes=True)
    spectrum = np.fft.rfft(case("C_10").template(settings))
    np.testing.assert_allclose(spectrum, settings.powers, atol=1e-12)


def test_more_powers_than_representations_are_refused_with_their_names() -> None:
    said = complaint_about(CustomFourierTemplate(powers=(0.0, 1.0, 1.0, 1.0, 1.0)), "D_5")
    assert "at most 4" in said
    assert "1, 1', 2, 2'" in said
    assert "got 5" in said
