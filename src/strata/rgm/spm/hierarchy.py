"""The discrete hierarchy: which tiles and groups belong together, and how likely what is below is.

An image is cut into a square of tiles. A *mode* is one coordinate of a tile, a *modality* one
(tile, mode) pair, an *outcome* the bin that a modality falls into. A *group* of level 0 is a square
of 2 x 2 tiles, one of a level above a square of 2 x 2 groups of the level below; the top level is
one group. Every group is in one of its states, which says how probable the outcomes (level 0) or
the states of its four children (above) are; the class says how probable the states of the top are.

Conventions: levels are numbered from 0. Tiles and groups are numbered row by row; the children of
a group are its upper left, upper right, lower left and lower right one. The modality of a group is
child * max_modes + mode. Arrays are as large as the tile with most modes and the group with most
states: what is left over is *padding*, never observed and never true. Imports no torch.

Source: Friston et al., arXiv:2407.20292, "From pixels to planning: scale-free active inference".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Integer

N_CHILDREN = 4

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Hierarchy:
    """What belongs together, and how many states each group has.

    Attributes:
        members: per level, the tiles of each group (level 0) or its groups of the level below.
        n_states: per level, the number of states of each group.
        is_mode: which modes a tile has.
        n_bins: bins of a modality.
        n_classes: classes that the state of the top depends on.
    """

    members: tuple[Integer[np.ndarray, "_ 4"], ...]
    n_states: tuple[Integer[np.ndarray, " _"], ...]
    is_mode: Bool[np.ndarray, "tile mode"]
    n_bins: int
    n_classes: int

    @property
    def n_levels(self) -> int:
        """Levels, the class not counted."""
        return len(self.members)

    @property
    def n_tiles(self) -> int:
        """Tiles of an image."""
        return len(self.is_mode)

    @property
    def max_modes(self) -> int:
        """Modes that arrays have room for."""
        return self.is_mode.shape[1]

    @cached_property
    def is_modality(self) -> Bool[np.ndarray, "group modality"]:
        """Which modalities the groups of level 0 have."""
        return self.is_mode[self.members[0]].reshape(len(self.members[0]), -1)

    @cached_property
    def is_state(self) -> tuple[Bool[np.ndarray, "_ _"], ...]:
        """Per level, which states [group, state] are real, and which are padding."""
        return tuple(np.arange(n.max()) < n[:, None] for n in self.n_states)

    def modalities(
        self, outcomes: Integer[np.ndarray, "*image tile mode"]
    ) -> Integer[np.ndarray, "*image group modality"]:
        """Return the outcomes of each group of level 0."""
        of_groups = outcomes[..., self.members[0], :]
        return of_groups.reshape(*outcomes.shape[:-2], *self.is_modality.shape)


@dataclass(frozen=True)
class Likelihoods:
    """How probable what is below is, given a state: columns that sum to 1.

    Attributes:
        outcomes: of a bin, given the state of a group of level 0. Modalities that do not exist, and
            padded states: 1 / bins.
        above: per level from 1 on, of the state of a child, given the state of its group. Padded
            states of a child: 0; given a padded state: equal over the real states of the child.
        classes: of a state of the top, given the class.
    """

    hierarchy: Hierarchy
    outcomes: Float[np.ndarray, "group modality bin state"]
    above: tuple[Float[np.ndarray, "_ 4 _ _"], ...]
    classes: Float[np.ndarray, "top class"]


def squares(side: int) -> Integer[np.ndarray, "group 4"]:
    """Return the members of each 2 x 2 square of a lattice of side x side, row by row.

    Raises:
        ValueError: a side that two does not divide.
    """
    if side < 2 or side % 2:
        raise ValueError(
            f"Squares of 2 x 2 need an even side; got {side}. Take a power of two of tiles."
        )
    numbers = np.arange(side * side).reshape(side // 2, 2, side // 2, 2)
    return numbers.swapaxes(1, 2).reshape(-1, N_CHILDREN)


def pyramid(n_tiles: int) -> tuple[Integer[np.ndarray, "_ 4"], ...]:
    """Return the members of the groups of all levels, up to the level of one group.

    Raises:
        ValueError: tiles that are not a square whose side is a power of two, two at least.
    """
    side = round(n_tiles**0.5)
    if side < 2 or side & (side - 1) or side * side != n_tiles:
        raise ValueError(
            "Groups of 2 x 2 need a square of tiles whose side is a power of two, two at least; "
            f"got {n_tiles} tiles. Change the number of tiles per side."
        )
    return tuple(squares(side >> level) for level in range(side.bit_length() - 1))
