"""Groups that every property of groups, representations and transforms is tested on."""

from collections.abc import Mapping

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
from strata.group_composition.groups import FiniteGroup, build_group, cyclic_table
from strata.group_composition.irreps import Irrep, irreducible_representations

CONSTRUCTED: dict[str, GroupSettings] = {
    "C_2": Cyclic(n=2),
    "C_10": Cyclic(n=10),
    "C_11": Cyclic(n=11),
    "C_5 x C_5": Product(orders=(5, 5)),
    "C_4 x C_4": Product(orders=(4, 4)),
    "C_2 x C_3 x C_4": Product(orders=(2, 3, 4)),
    "D_3": Dihedral(n=3),
    "D_4": Dihedral(n=4),
    "D_5": Dihedral(n=5),
    "D_6": Dihedral(n=6),
    "Q_8": Dicyclic(n=2),
    "Dic_3": Dicyclic(n=3),
    "S_2": Symmetric(n=2),
    "S_3": Symmetric(n=3),
    "S_4": Symmetric(n=4),
    "A_3": Alternating(n=3),
    "A_4": Alternating(n=4),
    "A_5": Alternating(n=5),
    "O": Octahedral(),
    "H_2": Heisenberg(p=2),
    "H_3": Heisenberg(p=3),
}
FROM_FILES = ("table C_2 x C_6.txt", "table Q_8 x C_3.txt")


def direct_product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    joined = first[:, None, :, None] * len(second) + second[None, :, None, :]
    return joined.reshape((len(first) * len(second),) * 2)


def renumbered(table: np.ndarray, seed: int) -> np.ndarray:
    """The same group, its elements other than the identity in another order."""
    random = np.random.default_rng(seed)
    order = np.concatenate([[0], 1 + random.permutation(len(table) - 1)])
    return order.argsort()[table[np.ix_(order, order)]]


@pytest.fixture(scope="session")
def settings_of(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, GroupSettings]:
    """Settings of the groups, by their names; some are read from files."""
    folder = tmp_path_factory.mktemp("tables")
    quaternions, three = build_group(Dicyclic(n=2)).table, cyclic_table((3,))
    tables = (cyclic_table((2, 6)), direct_product(quaternions, three))
    every = dict(CONSTRUCTED)
    for name, table in zip(FROM_FILES, tables, strict=True):
        file = folder / name.removeprefix("table ")
        np.savetxt(file, renumbered(table, seed=1), fmt="%d")
        every[name] = FromTable(file=str(file), order=len(table))
    return every


@pytest.fixture(scope="session", params=(*CONSTRUCTED, *FROM_FILES))
def group(request: pytest.FixtureRequest, settings_of: Mapping[str, GroupSettings]) -> FiniteGroup:
    """One group after the other."""
    return build_group(settings_of[request.param])


@pytest.fixture(scope="session")
def irreps(group: FiniteGroup) -> tuple[Irrep, ...]:
    """The representations of the group."""
    return irreducible_representations(group)
