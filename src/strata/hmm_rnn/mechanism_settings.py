"""Settings of how a trained network's way of changing its symbol is looked at.

Imports neither torch nor numpy.
"""

import itertools
from typing import Literal

from pydantic import field_validator, model_validator

from strata.config import Settings, setting

ZONES = ("transition", "kick", "cluster", "between")
"""Names of the zones of `strata.hmm_rnn.residency`; a zone's number is its place here."""


class MechanismSettings(Settings):
    """How a trained network is taken apart."""

    n_chains: int = setting(64, "Parallel runs that states are taken from.", ge=2)
    n_steps: int = setting(1000, "Steps of each.", unit="steps", ge=50)
    burn_in: int = setting(200, "Steps from zero before anything counts.", unit="steps", ge=0)
    n_points: int = setting(1000, "States whose residency time is measured.", ge=1)
    n_draws: int = setting(20, "Draws of the noise for each.", ge=1)
    max_steps: int = setting(60, "Longest residency time that is followed.", unit="steps", ge=1)
    transition_limit: float = setting(
        2.0, "Residency time below which a state is in transition.", unit="steps", ge=1
    )
    kick_limit: float = setting(
        8.0, "Residency time up to which a state is in a kick zone.", unit="steps", ge=1
    )
    cluster_probability: float = setting(
        0.8, "Largest softmax above which a state that stays is in a cluster.", ge=0, le=1
    )
    n_fork_points: int = setting(100, "States of each zone that are forked, at most.", ge=1)
    n_forks: int = setting(100, "Copies of each.", ge=2)
    fork_steps: int = setting(8, "Steps after a fork.", unit="steps", ge=1)
    gammas: tuple[float, ...] = setting((0.0, 0.5, 1.0), "Coefficients of the fresh noise, 0 to 1.")
    mixture: Literal["variance_preserving", "linear"] = setting(
        "variance_preserving",
        "How recorded and fresh noise mix: variance_preserving or linear (as in the source).",
    )
    window: int = setting(
        3, "Steps before a switch in which activity announces it.", unit="steps", ge=1
    )
    distance: int = setting(
        8, "Steps from any switch at which a state is calm.", unit="steps", ge=1
    )
    min_dwell: int = setting(
        3, "Dwell on either side that makes a switch a real one.", unit="steps", ge=1
    )
    min_switches: int = setting(50, "Real switches from which on a pair counts.", ge=2)
    group_size: int = setting(3, "Kick neurons of a pair.", unit="units", ge=1)
    n_controls: int = setting(20, "Groups of other units silenced to compare with.", ge=1)
    n_nearest: int = setting(
        10, "Units nearest in mean activity that a control is drawn from.", unit="units", ge=1
    )
    n_silenced_chains: int = setting(32, "Parallel runs of each silenced network.", ge=2)
    n_silenced_steps: int = setting(400, "Counted steps of each.", unit="steps", ge=2)
    silenced_burn_in: int = setting(
        50, "Steps after the silencing before anything counts.", unit="steps", ge=0
    )
    noise_scales: tuple[float, ...] = setting(
        (0.1, 0.2, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0),
        "Standard deviations of the noise, relative to training's.",
    )

    @field_validator("gammas")
    @classmethod
    def _shares(cls, gammas: tuple[float, ...]) -> tuple[float, ...]:
        if not gammas or not all(0 <= gamma <= 1 for gamma in gammas):
            raise ValueError(f"expected shares from 0 to 1; got {list(gammas)}.")
        return gammas

    @field_validator("noise_scales")
    @classmethod
    def _positive(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if not scales or not all(scale > 0 for scale in scales):
            raise ValueError(f"expected positive numbers; got {list(scales)}.")
        if any(after <= before for before, after in itertools.pairwise(scales)):
            raise ValueError(f"expected ascending numbers; got {list(scales)}.")
        return scales

    @model_validator(mode="after")
    def _in_order(self) -> "MechanismSettings":
        if self.transition_limit > self.kick_limit:
            raise ValueError(
                f"transition_limit ({self.transition_limit}) must not exceed kick_limit "
                f"({self.kick_limit})."
            )
        if self.max_steps <= self.kick_limit:
            raise ValueError(
                f"max_steps ({self.max_steps}) must exceed kick_limit ({self.kick_limit}): no "
                "state would be in a cluster."
            )
        if self.fork_steps >= self.n_steps:
            raise ValueError(
                f"fork_steps ({self.fork_steps}) must be fewer than n_steps ({self.n_steps})."
            )
        return self
