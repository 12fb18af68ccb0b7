"""How the networks of `hmm_rnn` are trained: data, loss, and what is looked at meanwhile.

Default values are those of the original (batch 4096, Adam with betas (0.9, 0.9), clipping at 0.9,
the Sinkhorn term alone); experiments say what works better. Imports neither torch nor numpy.
"""

import itertools
from typing import Literal

from pydantic import field_validator, model_validator

from strata.config import Settings, setting
from strata.training_settings import TrainingSettings


class MomentSettings(Settings):
    """The moment term: how far the joint laws of two words of symbols are from the exact ones."""

    weight: float = setting(0.0, "Weight of the term; 0 leaves it out.", ge=0)
    word_length: int = setting(
        1, "Symbols of a word; 1 compares pairs of symbols.", unit="symbols", ge=1, le=3
    )
    lags: tuple[int, ...] = setting(
        (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48),
        "Steps from the beginning of the first word to that of the second; lags that do not fit "
        "the sequences are left out.",
        unit="steps",
        min_length=1,
    )
    metric: Literal["chi2", "euclidean"] = setting(
        "chi2",
        "Squared differences of probabilities, each over the exact probability plus `softening` "
        "(chi2), or as they are (euclidean).",
    )
    softening: float = setting(
        1e-4, "chi2: probability added to the exact one, so that rare words do not rule.", gt=0
    )

    @field_validator("lags")
    @classmethod
    def _ascending(cls, lags: tuple[int, ...]) -> tuple[int, ...]:
        if lags[0] < 1 or any(b <= a for a, b in itertools.pairwise(lags)):
            raise ValueError(f"expected ascending lags from 1 on; got {list(lags)}.")
        return lags


class CurriculumStage(Settings):
    """Shorter sequences at the beginning."""

    until: float = setting(0.5, "Share of the steps at which the stage ends.", gt=0, lt=1)
    seq_len: int = setting(30, "Steps of a sequence until then.", unit="steps", ge=2)


class PlateauDetection(Settings):
    """A network that emits independent symbols has skill 0; a training stuck there is of no use."""

    after: int = setting(
        1000, "Training step from which on the skill is looked at.", unit="steps", ge=1
    )
    min_skill: float = setting(0.5, "A smaller skill is taken for being stuck.", gt=0, lt=1)
    then: Literal["warn", "stop"] = setting(
        "warn", "What to do: say so in the log once, or stop the run with an error."
    )


class HMMTraining(TrainingSettings):
    """The loss: the Sinkhorn divergence of whole sequences, plus the moment term."""

    steps: int = setting(3000, "Number of optimizer steps.", unit="steps", ge=1)
    lr: float = setting(1e-3, "Learning rate at the start.", gt=0)
    betas: tuple[float, float] = setting(
        (0.9, 0.9), "Decay per step of Adam's two moments, of the gradient and of its square."
    )
    clip_norm: float | None = setting(
        0.9, "Largest gradient norm (2-norm over all parameters); null never clips.", gt=0
    )
    data: Literal["fresh", "fixed"] = setting(
        "fresh",
        "Sequences of the hidden Markov model: new ones at every step, or always the same, in the "
        "same batches (a third of data.num_seq, as the original had it; the last batch of a round "
        "may be smaller).",
    )
    batch_size: int = setting(
        4096, "Sequences of the network, and of the model, per step.", unit="sequences", ge=2
    )
    blur: float = setting(
        0.2,
        "Square root of the last eps of the Sinkhorn divergence; the points are one-hot sequences, "
        "two of which lie sqrt(2) apart per different symbol.",
        gt=0,
    )
    blur_start: float | None = setting(
        None, "Blur at the start; it falls geometrically to `blur` by half of the steps.", gt=0
    )
    scaling: float = setting(
        0.5, "Ratio of neighbouring values of sqrt(eps) on the way down.", gt=0, lt=1
    )
    tau: float = setting(
        1.0, "Temperature of the Gumbel softmax that the gradient goes through.", gt=0
    )
    activity_weight: float = setting(
        0.0,
        "Weight of the mean of ln(1 + activity) over units and steps, which keeps activity from "
        "growing without bound over long sequences.",
        ge=0,
    )
    moments: MomentSettings = setting(MomentSettings(), "The moment term.")
    curriculum: tuple[CurriculumStage, ...] = setting(
        (), "Shorter sequences first: a list of {until, seq_len}, both ascending."
    )
    plateau_detection: PlateauDetection = setting(
        PlateauDetection(), "When a training is taken to be stuck emitting independent symbols."
    )

    @model_validator(mode="after")
    def _falling_blur(self) -> "HMMTraining":
        if self.blur_start is not None and self.blur_start < self.blur:
            raise ValueError(
                f"blur_start ({self.blur_start}) must not be below blur ({self.blur})."
            )
        return self

    @field_validator("curriculum")
    @classmethod
    def _growing(cls, stages: tuple[CurriculumStage, ...]) -> tuple[CurriculumStage, ...]:
        for before, after in itertools.pairwise(stages):
            if after.until <= before.until or after.seq_len <= before.seq_len:
                raise ValueError(
                    "expected stages with ascending `until` and `seq_len`; got "
                    f"{[(stage.until, stage.seq_len) for stage in stages]}."
                )
        return stages
