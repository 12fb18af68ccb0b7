"""Settings of the continuous model's training: loss, optimizer, schedule, epochs.

Imports neither torch nor numpy.
"""

from typing import Literal

from pydantic import field_validator, model_validator

from strata.config import Settings, setting
from strata.training_settings import PlateauSettings, TrainingSettings, decaying


class OptimizerSettings(Settings):
    """Adam."""

    type: Literal["adam"] = setting("adam", "The optimizer.")
    betas: tuple[float, float] = setting((0.9, 0.999), "Decay rates of Adam's two averages.")
    weight_decay: float = setting(1e-5, "L2 penalty added to the gradient by Adam.", ge=0)

    _decaying = field_validator("betas")(decaying)


class SchedulerSettings(Settings):
    """The learning rate over the run."""

    type: Literal["plateau", "cosine", "constant"] = setting(
        "plateau", "plateau: lower when the validation loss rests; cosine: down to zero at the end."
    )
    factor: float = setting(0.5, "plateau: what the learning rate is multiplied by.", gt=0, lt=1)
    patience: int = setting(
        5, "plateau: validations without an improvement before that.", unit="validations", ge=0
    )
    min_lr: float = setting(1e-6, "plateau: smallest learning rate.", ge=0)


class EarlyStoppingSettings(Settings):
    """When to stop before the last epoch."""

    patience: int | None = setting(
        10,
        "Validations in a row without an improvement before stopping; null never stops.",
        unit="validations",
        ge=1,
    )
    min_delta: float = setting(
        0.0, "Smallest fall of the validation loss that counts as an improvement.", ge=0
    )


class LossSettings(Settings):
    """Weights of the loss components, each a mean over images."""

    reconstruction: float = setting(
        1.0, "Squared error per pixel of the image that the top level's states descend to.", ge=0
    )
    reconstruction_below: float = setting(
        0.5, "The same from each lower level, relative to the top level's.", ge=0
    )
    prediction: float = setting(
        1e-3, "Precision-weighted prediction errors between neighbouring levels, per unit.", ge=0
    )
    consistency: float = setting(
        1e-3,
        "Squared distance of the lower states from what the top level predicts of them, relative "
        "to their own square.",
        ge=0,
    )
    sparsity: float = setting(
        1e-4, "Mean absolute value of the lower states, relative to their rms.", ge=0
    )
    classification: float = setting(
        0.03, "Cross entropy of the top level's categories and the labels.", ge=0
    )

    @model_validator(mode="after")
    def _some_reconstruction(self) -> "LossSettings":
        if self.reconstruction == 0:
            raise ValueError("reconstruction is 0: nothing would be learned of the images.")
        return self


class RGMTraining(Settings):
    """How the network is trained, in epochs and batches."""

    n_epochs: int = setting(50, "Passes over the training images.", unit="epochs", ge=1)
    batch_size: int = setting(128, "Images per step.", unit="images", ge=2)
    learning_rate: float = setting(1e-3, "Learning rate at the start.", gt=0)
    log_interval: int = setting(
        50, "Steps between two rows of the training history.", unit="steps", ge=1
    )
    checkpoint_interval: int = setting(5, "Epochs between checkpoints.", unit="epochs", ge=1)
    validation_interval: int = setting(1, "Epochs between validations.", unit="epochs", ge=1)
    plot_frequency: int = setting(
        5, "Epochs between pictures of reconstructions.", unit="epochs", ge=1
    )
    gradient_clip: float | None = setting(
        1.0, "Largest gradient norm (2-norm over all parameters); null never clips.", gt=0
    )
    loss: LossSettings = setting(LossSettings(), "Weights of the loss components.")
    optimizer: OptimizerSettings = setting(OptimizerSettings(), "The optimizer.")
    scheduler: SchedulerSettings = setting(SchedulerSettings(), "The learning rate.")
    early_stopping: EarlyStoppingSettings = setting(EarlyStoppingSettings(), "Early stopping.")
    detect_anomaly: bool = setting(
        False, "Name the operation that first gives a NaN (several times slower)."
    )
    memory_limit: int | None = setting(
        None, "Resident memory at which the run saves and stops; null for none.", unit="MiB", ge=1
    )

    def steps_per_epoch(self, n_train: int) -> int:
        """Full batches in the training images; what is left over waits for the next shuffle."""
        return n_train // self.batch_size

    def loop(self, n_train: int) -> TrainingSettings:
        """Return the same in optimizer steps."""
        epoch = self.steps_per_epoch(n_train)
        steps = self.n_epochs * epoch
        scheduler, stopping = self.scheduler, self.early_stopping
        return TrainingSettings(
            steps=steps,
            lr=self.learning_rate,
            betas=self.optimizer.betas,
            weight_decay=self.optimizer.weight_decay,
            schedule=scheduler.type,
            plateau=PlateauSettings(
                factor=scheduler.factor, patience=scheduler.patience, min_lr=scheduler.min_lr
            ),
            clip_norm=self.gradient_clip,
            record_every=self.log_interval,
            evaluate_every=self.validation_interval * epoch,
            checkpoint_every=self.checkpoint_interval * epoch,
            snapshot_every=self.plot_frequency * epoch,
            patience=stopping.patience,
            min_delta=stopping.min_delta,
            detect_anomaly=self.detect_anomaly,
            memory_limit=self.memory_limit,
        )
