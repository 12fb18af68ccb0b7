"""Groups and templates of the original group-agf programs, in the settings of this family.

Conventions: settings are plain blocks, as they stand in an experiment. Powers stand in the order of
escnn's irreducible representations in the original, here in the order of
`strata.group_composition.irreps`. Imports neither torch nor numpy.

Source: group-agf, commits 0dc2f6d to 66e2529; escnn, groups DihedralGroup, Octahedral, Icosahedral.
"""

from collections.abc import Mapping
from typing import Any

from strata.config import parse
from strata.group_composition.group_settings import (
    Alternating,
    Cyclic,
    Dihedral,
    Octahedral,
    Product,
)
from strata.group_composition.original_config import OriginalConfig

Block = dict[str, Any]

TEMPLATES = ("mnist", "fourier", "gaussian", "onehot", "custom_fourier")
GROUPS: Mapping[str, type[Cyclic | Product | Dihedral | Octahedral | Alternating]] = {
    "cyclic": Cyclic,
    "product": Product,
    "dihedral": Dihedral,
    "octahedral": Octahedral,
    "alternating": Alternating,
}


def group_block(original: OriginalConfig) -> Block:
    """Return the settings of the group; raises UserError for one that the original lacked."""
    name = original.value("data.group_name")
    if name is None:
        name = "cnxcn" if _dimension(original) == 2 else "cn"
    if name == "cn":
        return {"name": "cyclic", "n": original.whole("data.p")}
    if name == "cnxcn":
        return {
            "name": "product",
            "orders": [original.whole("data.p1"), original.whole("data.p2")],
        }
    original.choice("data.group_name", ("cn", "cnxcn", "dihedral", "octahedral", "A5"))
    if original.whole("data.k") > 2:
        original.notes.append(
            "sequences multiply to g_1 g_2 ... g_k; the original multiplied g_k ... g_2 g_1, which "
            "is the same task on sequences read backwards"
        )
    if name == "dihedral":
        return {"name": "dihedral", "n": original.whole("data.group_n")}
    return {"name": "octahedral"} if name == "octahedral" else {"name": "alternating", "n": 5}


def _dimension(original: OriginalConfig) -> int:
    if original.given("data.dimension"):
        dimension = original.whole("data.dimension")
        if dimension not in (1, 2):
            raise original.mistake("data.dimension", "expected 1 or 2", dimension)
        return dimension
    return 1 if original.given("data.p") and not original.given("data.p1") else 2


def order_of(group: Block, context: str) -> int:
    """Return the number of elements of a group; raises UserError for impossible settings."""
    return parse(GROUPS[group["name"]], group, f"{context}: group").order


def template_block(original: OriginalConfig, group: Block) -> Block:
    """Return the settings of the template; raises UserError for one that the group cannot have."""
    kind = original.choice("data.template_type", TEMPLATES)
    if kind == "mnist":
        return {"name": kind, "label": original.whole("data.mnist_label")}
    if kind == "fourier":
        return {"name": kind, "n_freqs": _n_freqs(original, group)}
    if kind == "custom_fourier":
        return {"name": kind, "powers": _powers(original, group)}
    if kind == "onehot" and group["name"] not in ("cyclic", "product"):
        return {"name": kind, "height": 10.0}
    return {"name": kind}


def _n_freqs(original: OriginalConfig, group: Block) -> int:
    if group["name"] == "cyclic" and group["n"] % 2 == 0:
        original.notes.append(
            "the frequency n / 2 of a cyclic group is never drawn for a template fourier; the "
            "original could draw it, with a power that depended on its phase"
        )
    if original.given("data.n_freqs"):
        return original.whole("data.n_freqs")
    share = order_of(group, original.context) // (4 if group["name"] == "cyclic" else 10)
    return min(10, share)


def _powers(original: OriginalConfig, group: Block) -> list[float]:
    """Return the powers in the order that representations have here."""
    if group["name"] in ("cyclic", "product"):
        raise original.mistake(
            "data.template_type",
            "expected another kind for a product of cyclic groups (the original knew "
            "custom_fourier for dihedral, octahedral and A5)",
            "custom_fourier",
        )
    places = original_places(group)
    powers = original.numbers("data.powers")
    if len(powers) != len(places):
        raise original.mistake(
            "data.powers",
            f"expected {len(places)} numbers, one for each irreducible representation",
            powers,
        )
    if group["name"] == "alternating" and powers[1] != powers[3]:
        original.notes.append(
            "which of the two representations of dimension 3 of A_5 is meant cannot be known; an "
            "automorphism of the group exchanges them, so that nothing depends on it"
        )
    if powers[0] != 0:
        original.notes.append(
            f"the power {powers[0]:g} of the trivial representation became 0: the mean is removed"
        )
    return [0.0, *(powers[place] for place in places[1:])]


def original_places(group: Block) -> list[int]:
    """Return the place in escnn's list of each irreducible representation of a group.

    Dimensions in escnn's order: O 1, 3, 3, 2, 1, the rotations of space before the other 3; A_5
    1, 3, 5, 3, 4; D_n 1, 1, 2, ..., 2 by frequency, then for even n two more of dimension 1, the
    one that changes sign under the first reflection before the one that does not.
    """
    if group["name"] == "octahedral":
        return [0, 4, 3, 1, 2]
    if group["name"] == "alternating":
        return [0, 1, 3, 4, 2]
    n = int(group["n"])
    two_dimensional = list(range(2, 2 + (n - 1) // 2))
    last = 2 + len(two_dimensional)
    return [0, 1, *([last + 1, last] if n % 2 == 0 else []), *two_dimensional]
