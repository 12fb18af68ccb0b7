"""Every way to damage an image: one contract for all, then what is special to each."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from strata.rgm.damage import DAMAGES, Damaged, damage
from strata.rgm.damage_kinds import DAMAGE_KINDS, check_severity, severities

P_VALUE = 1e-4
SHAPE = (28, 28)
EVERY_SEVERITY = [(name, severity) for name in DAMAGE_KINDS for severity in severities(name)]

every_damage = pytest.mark.parametrize("name", DAMAGES)
every_severity = pytest.mark.parametrize(("name", "severity"), EVERY_SEVERITY)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_images(
    n: int = 12, shape: tuple[int, int] = SHAPE, dtype: torch.dtype = torch.float32
) -> Tensor:
    return torch.rand(n, math.prod(shape), generator=generator(1), dtype=torch.float64).to(dtype)


def damaged(name: str, severity: float, images: Tensor, seed: int = 0) -> Damaged:
    return damage(images, SHAPE, name, severity, generator(seed))


# --- what holds for each ------------------------------------------------------------------------


def test_every_damage_has_a_description_and_a_function() -> None:
    assert set(DAMAGES) == set(DAMAGE_KINDS)
    for kind in DAMAGE_KINDS.values():
        assert list(kind.severities) == sorted(set(kind.severities))
        assert kind.severities[0] > 0


@every_severity
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_damaged_images_are_images_and_originals_stay(
    name: str, severity: float, dtype: torch.dtype
) -> None:
    images = some_images(dtype=dtype)
    before = images.clone()
    result = damaged(name, severity, images)
    assert torch.equal(images, before)
    assert result.images.shape == result.known.shape == images.shape
    assert result.images.dtype == result.known.dtype == dtype
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    assert not torch.equal(result.images, images)


@every_severity
def test_known_pixels_of_what_hides_are_unchanged_and_hidden_ones_are_zero(
    name: str, severity: float
) -> None:
    images = some_images()
    result = damaged(name, severity, images)
    assert set(result.known.unique().tolist()) <= {0.0, 1.0}
    if DAMAGE_KINDS[name].hides:
        assert torch.equal(result.images, torch.where(result.known == 1, images, 0.0))
        assert (result.known == 0).any()
    else:
        assert (result.known == 1).all()


@every_damage
def test_no_severity_leaves_images_as_they_are(name: str) -> None:
    images = some_images()
    result = damaged(name, 0.0, images)
    assert torch.equal(result.images, images)
    assert (result.known == 1).all()


@every_damage
def test_stronger_damage_moves_images_farther(name: str) -> None:
    images = some_images(64)
    errors = [
        (damaged(name, severity, images).images - images).square().mean().item()
        for severity in (0.0, *severities(name))
    ]
    assert errors == sorted(set(errors))


@pytest.mark.parametrize("shape", [(28, 28), (5, 3), (1, 1)])
@pytest.mark.parametrize("parts", [(7, 5), (1, 1, 10), (12,)])
@every_damage
def test_images_are_damaged_alike_whatever_the_size_of_the_batch(
    name: str, shape: tuple[int, int], parts: tuple[int, ...]
) -> None:
    images, severity = some_images(12, shape), 1.0 if name == "centre_occlusion" else 0.3
    whole = damage(images, shape, name, severity, generator(4))
    gen = generator(4)
    pieces = [damage(part, shape, name, severity, gen) for part in images.split(list(parts))]
    assert torch.equal(torch.cat([piece.images for piece in pieces]), whole.images)
    assert torch.equal(torch.cat([piece.known for piece in pieces]), whole.known)


@every_damage
def test_only_noise_depends_on_the_generator(name: str) -> None:
    images, severity = some_images(), severities(name)[1]
    same, other = (damaged(name, severity, images, seed).images for seed in (0, 1))
    assert torch.equal(same, damaged(name, severity, images, 0).images)
    assert torch.equal(same, other) == DAMAGE_KINDS[name].hides


# --- noise --------------------------------------------------------------------------------------


def test_gaussian_noise_has_its_standard_deviation() -> None:
    """Where the clipping is four standard deviations away, all of it is seen."""
    images = torch.full((60, 784), 0.5, dtype=torch.float64)
    noise = (damaged("gaussian", 0.1, images).images - images).flatten().numpy()
    assert stats.kstest(noise / 0.1, "norm").pvalue > P_VALUE


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_half_of_the_noise_on_the_background_is_clipped(sigma: float) -> None:
    found = damaged("gaussian", sigma, torch.zeros(60, 784)).images
    n = found.numel()
    assert abs((found == 0).sum().item() - n / 2) < 4 * math.sqrt(n / 4)
    white = n * stats.norm.sf(1 / sigma)
    assert abs((found == 1).sum().item() - white) <= 4 * math.sqrt(white) + 1e-9


@pytest.mark.parametrize("fraction", [0.05, 0.4, 1.0])
def test_salt_and_pepper_hits_its_fraction_with_equal_odds(fraction: float) -> None:
    images = torch.full((60, 784), 0.5)
    found = damaged("salt_and_pepper", fraction, images).images
    counts = [(found == value).sum().item() for value in (0.0, 1.0, 0.5)]
    n, odds = images.numel(), [fraction / 2, fraction / 2, 1 - fraction]
    assert sum(counts) == n
    if fraction == 1:
        counts, odds = counts[:2], odds[:2]
    assert stats.chisquare(counts, [n * p for p in odds]).pvalue > P_VALUE


def test_noise_falls_on_each_pixel_by_itself() -> None:
    """The correlation of neighbouring pixels and of neighbouring images is zero."""
    for name, severity in (("gaussian", 0.1), ("salt_and_pepper", 0.5)):
        noise = damaged(name, severity, torch.full((60, 784), 0.5, dtype=torch.float64)).images
        noise = (noise - noise.mean()) / noise.std()
        for one, other in ((noise[:, :-1], noise[:, 1:]), (noise[:-1], noise[1:])):
            assert abs((one * other).mean().item()) < 4 / math.sqrt(one.numel())


# --- occlusion ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fraction", "hidden"), [(0.125, 4), (0.25, 7), (0.375, 11), (0.5, 14), (1.0, 28)]
)
def test_the_right_part_is_hidden(fraction: float, hidden: int) -> None:
    known = damaged("half_occlusion", fraction, some_images()).known.view(-1, *SHAPE)
    assert (known[..., : 28 - hidden] == 1).all()
    assert (known[..., 28 - hidden :] == 0).all()


@pytest.mark.parametrize("side", [4.0, 8.0, 12.0, 16.0, 28.0])
def test_the_hidden_square_stands_in_the_centre(side: float) -> None:
    known = damaged("centre_occlusion", side, some_images()).known.view(-1, *SHAPE)
    assert (known == 0).sum(dim=(1, 2)).tolist() == [side**2] * len(known)
    for mirrored in (known.flip(1), known.flip(2), known.transpose(1, 2)):
        assert torch.equal(known, mirrored)
    assert (known[:, 14 - int(side) // 2, 14] == 0).all()


def test_rows_and_columns_are_told_apart() -> None:
    """Images of 2 rows and 6 columns."""
    images = torch.ones(1, 12)
    right = damage(images, (2, 6), "half_occlusion", 0.5, generator()).images
    assert right.view(2, 6).tolist() == [[1, 1, 1, 0, 0, 0]] * 2
    centre = damage(images, (2, 6), "centre_occlusion", 2.0, generator()).images
    assert centre.view(2, 6).tolist() == [[1, 1, 0, 0, 1, 1]] * 2
    nearly = damage(torch.ones(1, 15), (3, 5), "centre_occlusion", 2.0, generator()).images
    assert nearly.view(3, 5).tolist() == [[1, 0, 0, 1, 1], [1, 0, 0, 1, 1], [1, 1, 1, 1, 1]]


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "severity", "complaint"), [
    ("fog", 0.1, "one of gaussian"),
    ("gaussian", -0.1, "from 0 to inf"),
    ("gaussian", math.inf, "from 0 to inf"),
    ("gaussian", math.nan, "from 0 to inf"),
    ("salt_and_pepper", 1.1, "from 0 to 1"),
    ("half_occlusion", 1.5, "from 0 to 1"),
    ("centre_occlusion", 29.0, "from 0 to 28"),
    ("centre_occlusion", 4.5, "a whole number"),
])  # fmt: skip
def test_impossible_damage_is_refused(name: str, severity: float, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_severity(name, severity, SHAPE)
    with pytest.raises(ValueError, match=complaint):
        damaged(name, severity, some_images())


def test_the_image_shape_must_fit() -> None:
    with pytest.raises(ValueError, match="784 numbers"):
        damage(torch.zeros(2, 100), SHAPE, "gaussian", 0.1, generator())


def test_severities_of_what_does_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="one of gaussian"):
        severities("fog")
