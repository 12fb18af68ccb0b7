"""Templates: the functions on a group whose translates are multiplied.

    x_hat[R] = sum_g x[g] R(g)^T,   P_R = (m / D) ||x_hat[R]||^2 / |G|,   sum_R P_R = sum_g x[g]^2

with m the dimension and D the degree of the real irreducible representation R.

Conventions: a template is a float64 [element] in the order of the group's elements, and its mean is
zero. Standard deviations are those of the |G| values (the variance is their mean square). Element 0
is the identity. Pixels have values from 0 to 1, or from 0 to 255 as uint8. Imports no torch.

- An image is resized bilinearly to the group's shape where that has two axes (products of two
  cyclic groups; rotations over reflections of a dihedral group). For all other groups the means of
  its columns, one above each of 28 points, become a curve (a cubic spline), which is read at |G|
  evenly spaced points, first and last column included, in the order of the elements.
- Few frequencies: on C_n they are drawn from the frequencies of degree 2; on a product of cyclic
  groups they are the lowest of degree 2; on other groups they are the first non-trivial
  representations. A self-conjugate frequency is left out because its Fourier coefficient has a
  sign in the place of a phase. Powers fall linearly by a factor of ten in this order. What is
  random is the orthogonal part of each Fourier matrix: for degree 2 on C_n, the phase.
- A bump is exp(-d^2 / (2 sigma^2)). On cyclic groups and their products d is the Euclidean distance
  on the grid with opposite edges joined; the centre lies anywhere. On other groups d(g, c) is the
  length of c^-1 g as a word in a few generators and their inverses, so that a bump elsewhere is a
  translate of the bump at the identity; the centre is an element.

Source: "Sequential Group Composition", arXiv:2602.03655, for templates and their powers.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64, UInt8
from scipy.interpolate import CubicSpline
from scipy.linalg import polar

from strata.group_composition.fourier import Signal, fourier_transform, inverse_transform
from strata.group_composition.groups import FiniteGroup
from strata.group_composition.irreps import Irrep
from strata.group_composition.template_settings import MNISTTemplate, TemplateSettings

Pixels = Float64[np.ndarray, "row column"]
Images = Float[np.ndarray, "image row column"] | UInt8[np.ndarray, "image row column"]

POWERS = (100.0, 10.0)
"""Of the first and the last of few frequencies, before the variance is set to one."""
BUMP_WIDTHS = (0.5, 2.0)
BUMP_HEIGHTS = (0.5, 1.0)
SMALLEST_RANGE = 1e-9
"""Of pixel values: a template that varies less is constant up to rounding."""


def build_template(
    settings: TemplateSettings,
    group: FiniteGroup,
    irreps: Sequence[Irrep],
    *,
    generator: np.random.Generator,
    images: Images | None = None,
) -> Signal:
    """Return the template that the settings describe, its mean removed.

    `irreps` are all of the group's, the trivial one first. `images` are those that an image is
    drawn from, all of the wanted digit; other kinds of template do without.

    Raises:
        ValueError: the group has too few representations for the settings, images are missing, or
            the template would be constant.
    """
    signal = TEMPLATES[settings.name](settings, group, irreps, generator, images)
    return signal - signal.mean()


def of_unit_variance(signal: Signal) -> Signal:
    """Return a signal divided by its standard deviation."""
    return signal / signal.std()


# --- images -------------------------------------------------------------------------------------


def from_image(image: Pixels, shape: Sequence[int]) -> Signal:
    """Return an image at as many points as elements: resized to two axes, else as a curve."""
    if len(shape) == 2:
        return resized(image, (shape[0], shape[1])).ravel()
    return column_profile(image, int(np.prod(shape)))


def resized(image: Pixels, shape: tuple[int, int]) -> Float64[np.ndarray, "new_row new_column"]:
    """Return an image resized bilinearly; image and result fill the same square.

    Pixels are the centres of cells; beyond the outermost centres the image stays what it is there.
    """
    rows, columns = (
        _interpolation(n_points, n_pixels)
        for n_points, n_pixels in zip(shape, image.shape, strict=True)
    )
    return rows @ image @ columns.T


def _interpolation(n_points: int, n_pixels: int) -> Float64[np.ndarray, "point pixel"]:
    """Return the weight of each pixel at each point of one axis, a hat as wide as two pixels."""
    places = (np.arange(n_points) + 0.5) * n_pixels / n_points - 0.5
    distances = np.clip(places, 0, n_pixels - 1)[:, None] - np.arange(n_pixels)
    return np.maximum(0.0, 1.0 - np.abs(distances))


def column_profile(image: Pixels, n_points: int) -> Signal:
    """Return the means of an image's columns, read along a cubic spline from first to last."""
    n_columns = image.shape[1]
    curve = CubicSpline(np.arange(n_columns), image.mean(axis=0), bc_type="not-a-knot")
    return np.asarray(curve(np.linspace(0, n_columns - 1, n_points)))


def _drawn_image(
    settings: MNISTTemplate,
    group: FiniteGroup,
    generator: np.random.Generator,
    images: Images | None,
) -> Signal:
    if images is None or len(images) == 0:
        raise ValueError(
            f"The template {settings.name} is made from an image of the digit {settings.label}; "
            "got none: pass on the training images of this digit."
        )
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    image = images[generator.integers(len(images))].astype(np.float64) / scale
    signal = from_image(image, group.shape)
    if np.ptp(signal) < SMALLEST_RANGE:
        raise ValueError(
            f"The image has the same value at all {group.order} points that {group.name} samples "
            "it at: take a larger group or another kind of template."
        )
    return of_unit_variance(signal) if settings.unit_variance else signal


# --- Fourier matrices ---------------------------------------------------------------------------


def from_scalars(irreps: Sequence[Irrep], sizes: Sequence[float], *, magnitudes: bool) -> Signal:
    """Return the signal whose Fourier matrices are x_hat[R] = c_R 1.

    `sizes` are the powers P_R, or the c_R themselves if `magnitudes`, of the first so many
    representations; the others have none.

    Raises:
        ValueError: there are more numbers than representations.
    """
    if len(sizes) > len(irreps):
        names = ", ".join(irrep.name for irrep in irreps)
        raise ValueError(
            f"expected at most {len(irreps)} powers, one for each real irreducible representation "
            f"in the order {names}; got {len(sizes)}."
        )
    chosen = irreps[: len(sizes)]
    scales = np.array(sizes, dtype=np.float64) if magnitudes else _scales(chosen, sizes)
    units = [c * np.eye(irrep.dimension) for c, irrep in zip(scales, chosen, strict=True)]
    return inverse_transform(chosen, units)


def _scales(
    irreps: Sequence[Irrep], asked_powers: Sequence[float] | Float64[np.ndarray, " irrep"]
) -> Float64[np.ndarray, " irrep"]:
    """Return c_R such that c_R times an orthogonal Fourier matrix has the power P_R."""
    m = np.array([irrep.dimension for irrep in irreps])
    D = np.array([irrep.degree for irrep in irreps])
    order = len(irreps[0].matrices)
    return np.sqrt(np.asarray(asked_powers) * order * D) / m


def few_frequencies(
    group: FiniteGroup, irreps: Sequence[Irrep], n_freqs: int, generator: np.random.Generator
) -> Signal:
    """Return a signal of unit variance in n_freqs representations, with falling powers.

    Raises:
        ValueError: the group has fewer that can be taken.
    """
    candidates = irreps[1:]
    if _is_abelian_grid(irreps):
        candidates = [irrep for irrep in candidates if irrep.degree == 2]
    if n_freqs > len(candidates):
        raise ValueError(
            f"{group.name} has {len(candidates)} frequencies for a template fourier (the trivial "
            "one and, on cyclic groups and their products, self-conjugate ones are left out); got "
            f"n_freqs = {n_freqs}."
        )
    chosen = list(candidates[:n_freqs])
    if _is_abelian_grid(irreps) and len(group.shape) == 1:
        places = generator.choice(len(candidates), n_freqs, replace=False)
        chosen = [candidates[int(place)] for place in places]
    # A signal's Fourier matrices commute with what its representation commutes with, and so does
    # their orthogonal part: it is the Fourier matrix of a signal again.
    noise = fourier_transform(chosen, generator.standard_normal(group.order))
    scales = _scales(chosen, np.linspace(*POWERS, n_freqs))
    matrices = [c * polar(x_hat)[0] for c, x_hat in zip(scales, noise, strict=True)]
    return of_unit_variance(inverse_transform(chosen, matrices))


def _is_abelian_grid(irreps: Sequence[Irrep]) -> bool:
    """Return whether the group is a product of cyclic ones, laid out along its factors."""
    return irreps[0].frequency is not None


# --- bumps --------------------------------------------------------------------------------------


def sum_of_bumps(
    group: FiniteGroup, irreps: Sequence[Irrep], n_bumps: int, generator: np.random.Generator
) -> Signal:
    """Return a sum of Gaussian bumps of random places, widths and heights, with unit variance."""
    distances = _grid_distances if _is_abelian_grid(irreps) else _word_distances
    signal = np.zeros(group.order)
    for d in distances(group, n_bumps, generator):
        sigma, height = generator.uniform(*BUMP_WIDTHS), generator.uniform(*BUMP_HEIGHTS)
        signal += height * np.exp(-(d**2) / (2 * sigma**2))
    return of_unit_variance(signal)


def _grid_distances(
    group: FiniteGroup, n_centres: int, generator: np.random.Generator
) -> Float64[np.ndarray, "centre element"]:
    """Return distances from random points of the grid whose opposite edges are joined."""
    sizes = np.array(group.shape)
    grid = np.indices(group.shape).reshape(len(sizes), -1)
    centres = generator.uniform(0, sizes, (n_centres, len(sizes)))
    offsets = np.abs(grid - centres[:, :, None])
    shortest = np.minimum(offsets, sizes[:, None] - offsets)
    return np.sqrt((shortest**2).sum(axis=1))


def _word_distances(
    group: FiniteGroup, n_centres: int, generator: np.random.Generator
) -> Float64[np.ndarray, "centre element"]:
    """Return distances in the Cayley graph from random elements."""
    centres = generator.integers(group.order, size=n_centres)
    from_centre = group.table[group.inverses[centres]]  # [centre, element]: c^-1 g
    return word_lengths(group)[from_centre].astype(np.float64)


def word_lengths(group: FiniteGroup) -> Int64[np.ndarray, " element"]:
    """Return how many generators and inverses of them each element takes at least.

    A generator is the first element that the generators before it do not generate.
    """
    generators: list[int] = []
    lengths = _lengths_in(group, generators)
    while lengths.min() < 0:
        generators.append(int(np.argmin(lengths)))
        lengths = _lengths_in(group, generators)
    return lengths


def _lengths_in(group: FiniteGroup, generators: Sequence[int]) -> Int64[np.ndarray, " element"]:
    """Return the lengths of words, -1 for elements that there is no word for."""
    letters = np.array([*generators, *group.inverses[list(generators)]], dtype=np.int64)
    lengths = np.full(group.order, -1, dtype=np.int64)
    reached, length = np.array([0]), 0
    while len(reached):
        lengths[reached] = length
        neighbours = np.unique(group.table[np.ix_(reached, letters)])
        reached, length = neighbours[lengths[neighbours] < 0], length + 1
    return lengths


# --- kinds --------------------------------------------------------------------------------------


def _one_hot(group: FiniteGroup, height: float) -> Signal:
    signal = np.zeros(group.order)
    signal[0] = height
    return signal


TEMPLATES: dict[str, Callable[..., Signal]] = {
    "mnist": lambda settings, group, _, generator, images: _drawn_image(
        settings, group, generator, images
    ),
    "fourier": lambda settings, group, irreps, generator, _: few_frequencies(
        group, irreps, settings.n_freqs, generator
    ),
    "gaussian": lambda settings, group, irreps, generator, _: sum_of_bumps(
        group, irreps, settings.n_bumps, generator
    ),
    "onehot": lambda settings, group, *_: _one_hot(group, settings.height),
    "custom_fourier": lambda settings, _, irreps, *__: from_scalars(
        irreps, settings.powers, magnitudes=settings.magnitudes
    ),
}
"""Constructors by name; each takes (settings, group, irreps, generator, images)."""
