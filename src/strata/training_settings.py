"""Settings of the training loop that all families share.

Imports neither torch nor numpy.
"""

from typing import Literal

from pydantic import field_validator, model_validator

from strata.config import Settings, setting


def decaying(betas: tuple[float, float]) -> tuple[float, float]:
    """Return decay rates of averages as they are; raises ValueError for others."""
    if not all(0.0 <= beta < 1.0 for beta in betas):
        raise ValueError(f"expected two numbers from 0 to below 1; got {list(betas)}.")
    return betas


class PlateauSettings(Settings):
    """When the learning rate is lowered; read by the schedule plateau alone."""

    factor: float = setting(0.5, "What the learning rate is multiplied by.", gt=0, lt=1)
    patience: int = setting(
        5,
        "Evaluations in a row without a better one that change nothing; one more lowers the rate.",
        unit="evaluations",
        ge=0,
    )
    min_lr: float = setting(1e-6, "Learning rate that it is not lowered beyond.", ge=0)
    threshold: float = setting(
        1e-4, "How much smaller than the best an evaluation must be to be better.", ge=0
    )
    threshold_mode: Literal["relative", "absolute"] = setting(
        "relative",
        "Whether the threshold is a fraction of the best value's size or in the metric's unit.",
    )
    cooldown: int = setting(
        0, "Evaluations after a lowering that do not count.", unit="evaluations", ge=0
    )


class TrainingSettings(Settings):
    """What `strata.training.fit` needs to know; families add their own fields."""

    steps: int = setting(5000, "Number of optimizer steps.", unit="steps", ge=1)
    lr: float = setting(1e-3, "Learning rate at the start.", gt=0)
    betas: tuple[float, float] = setting(
        (0.9, 0.999), "Decay per step of Adam's two moments, of the gradient and of its square."
    )
    amsgrad: bool = setting(False, "Let Adam divide by the largest second moment so far.")
    schedule: Literal["constant", "cosine", "plateau"] = setting(
        "constant",
        "Learning rate over the run: constant, a cosine that ends at zero, or lowered when the "
        "evaluations no longer improve.",
    )
    plateau: PlateauSettings = setting(
        PlateauSettings(), "When the schedule plateau lowers the learning rate."
    )
    clip_norm: float | None = setting(
        None, "Largest gradient norm (2-norm over all parameters); null never clips.", gt=0
    )
    weight_decay: float = setting(0.0, "L2 penalty added to the gradient by Adam.", ge=0)
    ema_decay: float | None = setting(
        None,
        "Decay per step of an average of the weights, which is what is evaluated and kept; "
        "smaller in the first steps, so that the average forgets where it began. null: no average.",
        ge=0,
        lt=1,
    )
    record_every: int = setting(
        1, "Steps between two rows of the training history.", unit="steps", ge=1
    )
    evaluate_every: int = setting(100, "Steps between two evaluations.", unit="steps", ge=1)
    checkpoint_every: int = setting(100, "Steps between two checkpoints.", unit="steps", ge=1)
    snapshot_every: int | None = setting(
        None, "Steps between two snapshots of the learner; null keeps none.", unit="steps", ge=1
    )
    patience: int | None = setting(
        None,
        "Evaluations without a new best before stopping early; null never stops.",
        unit="evaluations",
        ge=1,
    )
    min_delta: float = setting(
        0.0,
        "For patience alone: an evaluation counts as a new best if it is smaller than the last "
        "that counted by more than this, in the metric's unit. The best weights are kept at every "
        "smaller value.",
        ge=0,
    )
    min_steps: int = setting(
        0, "Steps before which patience does not end the run.", unit="steps", ge=0
    )
    on_nonfinite: Literal["stop", "step_back"] = setting(
        "step_back",
        "On a NaN or infinite loss or gradient: stop, or return to the last good checkpoint with "
        "half the learning rate (at most three times).",
    )
    detect_anomaly: bool = setting(
        False,
        "For debugging: stop at the first NaN that appears in a gradient and name the operation "
        "(torch's anomaly mode; several times slower).",
    )
    memory_limit: int | None = setting(
        None,
        "At an evaluation, save and stop if the process holds more memory than this; null sets no "
        "limit.",
        unit="MiB",
        ge=1,
    )

    _decaying = field_validator("betas")(decaying)

    @model_validator(mode="after")
    def _something_to_record(self) -> "TrainingSettings":
        if self.record_every > self.steps:
            raise ValueError(
                f"record_every ({self.record_every}) exceeds steps ({self.steps}): nothing would "
                "be recorded."
            )
        return self
