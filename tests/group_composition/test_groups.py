"""Groups: the axioms on every table, products against matrices and maps, and refused tables."""

import itertools
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from strata.group_composition.group_settings import (
    Alternating,
    Cyclic,
    Dicyclic,
    Dihedral,
    FromTable,
    GroupSettings,
    Heisenberg,
    Octahedral,
    Product,
    Symmetric,
)
from strata.group_composition.groups import (
    CONSTRUCTORS,
    FiniteGroup,
    build_group,
    check_group,
    cyclic_table,
)

ABELIAN = {"C_2", "C_10", "C_11", "C_5 x C_5", "C_4 x C_4", "C_2 x C_3 x C_4", "S_2", "A_3"} | {
    "table C_2 x C_6.txt"
}
LAID_OUT = {"C_10": (10,), "C_2 x C_3 x C_4": (2, 3, 4), "D_5": (2, 5), "Q_8": (8,), "O": (24,)}


def test_every_constructor_has_settings_and_is_tested(
    settings_of: Mapping[str, GroupSettings],
) -> None:
    kinds = {kind.model_fields["name"].default for kind in get_args(GroupSettings)}
    assert set(CONSTRUCTORS) == kinds
    assert {settings.name for settings in settings_of.values()} == kinds


def test_a_group_is_what_its_settings_say(
    group: FiniteGroup, settings_of: Mapping[str, GroupSettings]
) -> None:
    assert group.name in settings_of
    assert group.order == settings_of[group.name].order == math.prod(group.shape)
    assert len(set(group.labels)) == len(group.labels) == group.order
    assert group.is_abelian == (group.name in ABELIAN)
    if group.name in LAID_OUT:
        assert group.shape == LAID_OUT[group.name]


def test_axioms_hold_for_all_elements(group: FiniteGroup) -> None:
    table, everything = group.table, np.arange(group.order)
    assert table.min() == 0
    assert table.max() == group.order - 1
    np.testing.assert_array_equal(table[0], everything)
    np.testing.assert_array_equal(table[:, 0], everything)
    np.testing.assert_array_equal(table[table], table[:, table])  # (g h) k = g (h k)
    assert not table[everything, group.inverses].any()
    assert not table[group.inverses, everything].any()
    check_group(table)


def rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def of_dihedral(n: int) -> Callable[[str], np.ndarray]:
    def model(label: str) -> np.ndarray:
        turned = rotation(2 * np.pi * int(label.rpartition("r")[2]) / n)
        return np.diag([1.0, -1.0]) @ turned if label.startswith("s") else turned

    return model


def of_dicyclic(n: int) -> Callable[[str], np.ndarray]:
    def model(label: str) -> np.ndarray:
        phase = np.exp(1j * np.pi * int(label.rpartition("a")[2]) / n)
        turned = np.diag([phase, phase.conjugate()])
        return np.array([[0, -1], [1, 0]]) @ turned if label.startswith("b") else turned

    return model


def quaternion(label: str) -> np.ndarray:
    units = {
        "1": np.eye(2),
        "i": np.diag([1j, -1j]),
        "j": np.array([[0, 1], [-1, 0]]),
        "k": np.array([[0, 1j], [1j, 0]]),
    }
    return units[label[-1]] * (-1 if label.startswith("-") else 1)


def of_permutations(n: int) -> Callable[[str], np.ndarray]:
    def model(label: str) -> np.ndarray:
        matrix = np.eye(n)
        for cycle in re.findall(r"\(([\d ]+)\)", label):
            points = [int(point) - 1 for point in cycle.split()]
            for point, image in itertools.pairwise([*points, points[0]]):
                matrix[:, point] = np.eye(n)[image]
        return matrix

    return model


def coordinate_triplet(label: str) -> np.ndarray:
    rows = [np.eye(3)["xyz".index(c[-1])] * (-1 if c[0] == "-" else 1) for c in label.split(",")]
    return np.array(rows)


def of_heisenberg(label: str) -> np.ndarray:
    a, b, c = map(int, label.strip("()").split(","))
    return np.array([[1, a, c], [0, 1, b], [0, 0, 1]])


def of_phases(orders: tuple[int, ...]) -> Callable[[str], np.ndarray]:
    def model(label: str) -> np.ndarray:
        numbers = map(int, label.strip("()").split(","))
        pairs = zip(numbers, orders, strict=True)
        return np.diag([np.exp(2j * np.pi * g / n) for g, n in pairs])

    return model


MODELS: list[tuple[GroupSettings, Callable[[str], np.ndarray], int | None]] = [
    (Cyclic(n=10), of_phases((10,)), None),
    (Product(orders=(2, 3, 4)), of_phases((2, 3, 4)), None),
    (Dihedral(n=3), of_dihedral(3), None),
    (Dihedral(n=6), of_dihedral(6), None),
    (Dicyclic(n=2), quaternion, None),
    (Dicyclic(n=3), of_dicyclic(3), None),
    (Dicyclic(n=6), of_dicyclic(6), None),
    (Symmetric(n=4), of_permutations(4), None),
    (Alternating(n=5), of_permutations(5), None),
    (Octahedral(), coordinate_triplet, None),
    (Heisenberg(p=2), of_heisenberg, 2),
    (Heisenberg(p=5), of_heisenberg, 5),
]


@pytest.mark.parametrize(
    ("settings", "model", "modulus"), MODELS, ids=[build_group(s).name for s, _, _ in MODELS]
)
def test_labels_multiply_as_the_matrices_they_stand_for(
    settings: GroupSettings, model: Callable[[str], np.ndarray], modulus: int | None
) -> None:
    group = build_group(settings)
    matrices = np.array([model(label) for label in group.labels])
    assert len(np.unique(matrices.round(6), axis=0)) == group.order
    products = matrices[:, None] @ matrices
    if modulus:
        products = products % modulus
    np.testing.assert_allclose(products, matrices[group.table], atol=1e-12)


def test_rotations_of_the_cube_are_proper() -> None:
    labels = build_group(Octahedral()).labels
    assert {round(float(np.linalg.det(coordinate_triplet(label)))) for label in labels} == {1}


def test_even_permutations_are_the_alternating_group() -> None:
    labels = build_group(Alternating(n=5)).labels
    assert {round(float(np.linalg.det(of_permutations(5)(label)))) for label in labels} == {1}


def isomorphic(first: FiniteGroup, second: FiniteGroup) -> bool:
    """Whether some images of two generators of the first group extend to an isomorphism."""
    everything = range(first.order)
    pairs = itertools.product(everything, repeat=2)
    generators = next(
        pair for pair in pairs if len(extension(first, first, pair, pair)) == len(first.table)
    )
    for images in itertools.product(everything, repeat=2):
        mapped = extension(first, second, generators, images)
        if sorted(mapped.values()) == list(everything):
            f = np.array([mapped[g] for g in everything])
            if np.array_equal(f[first.table], second.table[np.ix_(f, f)]):
                return True
    return False


def extension(
    first: FiniteGroup, second: FiniteGroup, generators: tuple[int, int], images: tuple[int, int]
) -> dict[int, int]:
    """The first images found of the words in the generators."""
    mapped, waiting = {0: 0}, [0]
    while waiting:
        g = waiting.pop()
        for generator, image in zip(generators, images, strict=True):
            product = int(first.table[g, generator])
            if product not in mapped:
                mapped[product] = int(second.table[mapped[g], image])
                waiting.append(product)
    return mapped


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Octahedral(), Symmetric(n=4)),
        (Dihedral(n=3), Symmetric(n=3)),
        (Heisenberg(p=2), Dihedral(n=4)),
        (Alternating(n=3), Cyclic(n=3)),
        (Product(orders=(2, 3)), Cyclic(n=6)),
    ],
    ids=["O, S_4", "D_3, S_3", "H_2, D_4", "A_3, C_3", "C_2 x C_3, C_6"],
)
def test_groups_that_are_the_same(first: GroupSettings, second: GroupSettings) -> None:
    assert isomorphic(build_group(first), build_group(second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Dicyclic(n=2), Dihedral(n=4)),
        (Dicyclic(n=3), Dihedral(n=6)),
        (Dicyclic(n=3), Alternating(n=4)),
        (Octahedral(), Dihedral(n=12)),
        (Product(orders=(2, 4)), Cyclic(n=8)),
    ],
    ids=["Q_8, D_4", "Dic_3, D_6", "Dic_3, A_4", "O, D_12", "C_2 x C_4, C_8"],
)
def test_groups_that_are_not_the_same(first: GroupSettings, second: GroupSettings) -> None:
    assert not isomorphic(build_group(first), build_group(second))


def test_translates_are_those_of_the_definition(group: FiniteGroup) -> None:
    """The value that x has at h moves to g h."""
    template = np.random.default_rng(0).standard_normal(group.order)
    translates = group.translates(template)
    for g in range(group.order):
        moved = np.empty(group.order)
        moved[group.table[g]] = template
        np.testing.assert_array_equal(translates[g], moved)


def test_translating_twice_translates_by_the_product(group: FiniteGroup) -> None:
    template = np.random.default_rng(1).standard_normal(group.order)
    once = group.translates(template)
    for h in range(group.order):  # lambda(g) lambda(h) x = x_{g h}
        np.testing.assert_array_equal(group.translates(once[h]), once[group.table[:, h]])


def test_translates_on_cyclic_groups_are_rolls() -> None:
    template = np.random.default_rng(2).standard_normal(12)
    line = build_group(Cyclic(n=12)).translates(template)
    np.testing.assert_array_equal(line, [np.roll(template, g) for g in range(12)])
    torus = build_group(Product(orders=(3, 4))).translates(template)
    rolled = [np.roll(template.reshape(3, 4), g, axis=(0, 1)).ravel() for g in np.ndindex(3, 4)]
    np.testing.assert_array_equal(torus, rolled)


def test_a_template_of_another_group_is_refused() -> None:
    with pytest.raises(ValueError, match="a function of 5 values, one per element of C_5; got 6"):
        build_group(Cyclic(n=5)).translates(np.zeros(6))


def test_products_of_sequences_are_taken_from_left_to_right(group: FiniteGroup) -> None:
    random = np.random.default_rng(3)
    sequences = random.integers(0, group.order, (4, 5, 6)).astype(np.uint8)
    found = group.product(sequences)
    for place in np.ndindex(4, 5):
        product = 0
        for g in sequences[place].tolist():
            product = int(group.table[product, g])
        assert found[place] == product
    np.testing.assert_array_equal(group.product(sequences[..., :1]), sequences[..., 0])
    assert group.product(sequences[0, 0]) == found[0, 0]


LOOP = [[0, 1, 2, 3, 4], [1, 0, 3, 4, 2], [2, 4, 0, 1, 3], [3, 2, 4, 0, 1], [4, 3, 1, 2, 0]]
REFUSED = {
    "an entry too large": ([[0, 1], [1, 2]], "from 0 to 1; got 1 1 = 2"),
    "an entry below zero": ([[0, 1], [1, -1]], "from 0 to 1; got 1 1 = -1"),
    "no identity": ([[0, 0], [0, 0]], "the table has none"),
    "an identity from the left only": ([[0, 1], [0, 1]], "the table has none"),
    "an identity from the right only": ([[0, 0], [1, 1]], "the table has none"),
    "an identity elsewhere": ([[1, 0], [0, 1]], "it is element 1 of the table. Swap rows 0 and 1"),
    "no inverse": ([[0, 1, 2], [1, 2, 0], [2, 2, 2]], "element 2 has none"),
    "not associative": (LOOP, r"associative; got \(\d \d\) \d = \d but \d \(\d \d\) = \d"),
}


@pytest.mark.parametrize(("rows", "message"), REFUSED.values(), ids=list(REFUSED))
def test_tables_that_are_no_groups_are_refused(rows: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_group(np.array(rows))


def test_an_identity_elsewhere_is_mended_as_the_message_says() -> None:
    swapped = np.array([3, 1, 2, 0, 4, 5])
    table = build_group(Dihedral(n=3)).table
    elsewhere = swapped[table[np.ix_(swapped, swapped)]]
    with pytest.raises(
        ValueError, match="Swap rows 0 and 3, columns 0 and 3, and the numbers 0 and 3"
    ):
        check_group(elsewhere)
    rows = elsewhere.copy()
    rows[[0, 3]] = rows[[3, 0]]
    rows[:, [0, 3]] = rows[:, [3, 0]]
    mended = np.where(rows == 0, 3, np.where(rows == 3, 0, rows))
    check_group(mended)
    np.testing.assert_array_equal(mended, table)


def latin_squares(n: int) -> list[np.ndarray]:
    """All tables in which element 0 is the identity and every element occurs once per line."""
    squares = [np.arange(n)[None]]
    for g in range(1, n):
        rows = [np.array(p) for p in itertools.permutations(range(n)) if p[0] == g]
        squares = [
            np.vstack([square, row]) for square in squares for row in rows if (square != row).all()
        ]
    return squares


@pytest.mark.parametrize(("n", "loops", "groups"), [(3, 1, 1), (4, 4, 4), (5, 56, 6)])
def test_of_all_loops_the_groups_are_found(n: int, loops: int, groups: int) -> None:
    """(n - 1)! / |Aut| tables of each group of order n have the identity at 0."""
    squares = latin_squares(n)
    assert len(squares) == loops
    found = 0
    for square in squares:
        violations = np.argwhere(square[square] != square[:, square])
        if len(violations):
            with pytest.raises(ValueError, match="associative") as caught:
                check_group(square)
            g, h, k = map(int, re.findall(r"\d+", str(caught.value))[:3])
            assert [g, h, k] in violations.tolist()
        else:
            check_group(square)
            found += 1
    assert found == groups


def test_elements_that_associate_with_all_do_not_hide_the_others() -> None:
    """In the product with C_2, numbers 2 u + v, the first element after the identity does so."""
    loop, two = np.array(LOOP), cyclic_table((2,))
    joined = (2 * loop[:, None, :, None] + two[None, :, None, :]).reshape(10, 10)
    np.testing.assert_array_equal(joined[joined[:, 1]], joined[:, joined[1]])
    with pytest.raises(ValueError, match="associative"):
        check_group(joined)


def test_one_wrong_square_in_a_large_table_is_found() -> None:
    """Two rows and two columns of four elements that change places leave a Latin square."""
    table = build_group(Product(orders=(2, 3, 4))).table
    involution = 12  # (1, 0, 0)
    for g, h in [(1, 2), (5, 7), (13, 22)]:
        broken = table.copy()
        block = np.ix_([g, table[g, involution]], [h, table[h, involution]])
        broken[block] = broken[block][::-1]
        assert not np.array_equal(broken, table)
        with pytest.raises(ValueError, match="associative"):
            check_group(broken)


def read(folder: Path, text: str, order: int) -> FiniteGroup:
    file = folder / "mine.txt"
    file.write_text(text, encoding="utf-8")
    return build_group(FromTable(file=str(file), order=order))


@pytest.mark.parametrize(
    "text", ["0 1 2\n1 2 0\n2 0 1\n", "0,1,2\n1, 2, 0\n\n2,\t0,1", "0 1 2 \n 1 2 0\n2 0 1"]
)
def test_tables_are_read_with_blanks_or_commas(text: str, tmp_path: Path) -> None:
    group = read(tmp_path, text, 3)
    np.testing.assert_array_equal(group.table, cyclic_table((3,)))
    assert (group.name, group.labels, group.shape) == ("table mine.txt", ("0", "1", "2"), (3,))


BAD_FILES = {
    "a short row": ("0 1 2\n1 2\n2 0 1", 3, r"square.* are 3; row 1 .* has 2"),
    "too few rows": ("0 1 2\n1 2 0\n", 3, r"square.* are 2; row 0 .* has 3"),
    "a fraction": ("0 1\n1 0.0\n", 2, r"integers; row 1 .* holds '0\.0'"),
    "a word": ("e a\na e\n", 2, r"integers; row 0 .* holds 'e'"),
    "a number beyond all bounds": (f"0 1\n1 {'9' * 30}\n", 2, "integers; row 1"),
    "another order": ("0 1\n1 0\n", 4, "of 4 elements, as the settings say; it has 2 rows"),
    "nothing": ("\n", 2, "it has 0 rows"),
    "no group": ("0 1\n1 1\n", 2, "element 1 has none"),
}


@pytest.mark.parametrize(("text", "order", "message"), BAD_FILES.values(), ids=list(BAD_FILES))
def test_a_bad_file_is_refused_by_name(text: str, order: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"mine\.txt: .*{message}"):
        read(tmp_path, text, order)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.txt: expected a text file"):
        build_group(FromTable(file=str(tmp_path / "absent.txt"), order=2))
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"binary\.txt: expected a text file"):
        build_group(FromTable(file=str(binary), order=2))
