"""Settings of the discrete model (`model: spm`): its exemplars, and how it counts.

What the model looks at (tiles, modes, bins, levels) stands in its GNN file. Imports neither torch
nor numpy.
"""

from typing import Literal

from strata.config import Settings, setting

N_SLICE = 1000
"""Images behind those that were learned, which the published accuracy is about."""


class StructureSettings(Settings):
    """From which images the discrete model takes its states and its outcomes."""

    n_exemplars: int = setting(
        13, "Exemplars of every class, of which the structure is made.", unit="images", ge=1, le=100
    )
    exemplars: Literal["first", "random", "medoids"] = setting(
        "first",
        "Which images of a class they are: the first ones, random ones, or those nearest to the "
        "means of as many clusters.",
    )
    n_basis: int = setting(
        10000,
        "Training images, from the first on, that singular vectors and bins are fitted to; all of "
        "them if there are fewer.",
        unit="images",
        ge=10,
    )


class CountingSettings(Settings):
    """How the discrete model learns from the images after its exemplars, in one pass."""

    concentration: float = setting(
        0.03125, "Dirichlet counts that everything possible has at the start.", unit="images", gt=0
    )
    class_concentration: float = setting(
        0.0078125, "The same for the states of a class.", unit="images", gt=0
    )
    gate: Literal["information", "always"] = setting(
        "information",
        "How much of an image a mapping learns: by what it adds to the mapping's mutual "
        "information, or all of it.",
    )
    sharpness: float = setting(512.0, "Inverse temperature beta of that gate.", unit="1/nats", gt=0)
    horizon: float | None = setting(
        512.0,
        "Images eta after which the counts of a mapping forget as much as they learn; null never "
        "forgets.",
        unit="images",
        ge=1,
    )
    messages: Literal["posterior", "exact"] = setting(
        "posterior",
        "What a level tells the level above: its posterior, its own prior included, as published, "
        "or the likelihood alone, as Bayes' rule has it.",
    )
    threshold: float = setting(
        1e-4, "States less probable than this are not counted for.", ge=0, lt=0.1
    )
    evaluate_at: tuple[int, ...] = setting(
        (0, 100, 300, 1000, 2000, 3000, 5000, 10000, 20000, 30000, 40000, 50000),
        "Numbers of learned images at which the model is tested; the last image is one anyway.",
        unit="images",
    )
