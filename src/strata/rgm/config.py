"""Settings of the `rgm` family.

What the network is (dimensions, activations, initialisation, message passing) stands in the GNN
files that `specification` names; here stands what is done with it. Training follows seed values:
Adam at 1e-3, batches of 128, the plateau schedule. Imports neither torch nor numpy.
"""

from typing import ClassVar, Literal

from pydantic import field_validator, model_validator

from strata import config
from strata.config import Settings, setting
from strata.training_settings import PlateauSettings, TrainingSettings, decaying

GNN_FILES = tuple(
    f"config/gnn/rgm_{part}.gnn"
    for part in ("base", "hierarchical_level", "message_passing", "mnist")
)
N_TRAINING, N_VALIDATION, N_TEST = 54000, 6000, 10000
"""Images of a dataset: the official training set without and the validation set, the test set."""
N_CLASSES = 10
ACTIVE_STD = 0.01
"""A unit is active if its values over images have at least this standard deviation."""


class DataSettings(Settings):
    """Which images, and how many of them."""

    dataset: Literal["mnist", "fashion_mnist"] = setting("mnist", "The images.")
    n_train: int = setting(
        N_TRAINING,
        "Training images: the first of those that are not for validation.",
        unit="images",
        ge=1000,
        le=N_TRAINING,
    )
    n_validation: int = setting(
        N_VALIDATION, "Validation images.", unit="images", ge=100, le=N_VALIDATION
    )

    @property
    def file(self) -> str:
        """The file of the images."""
        return f"results/data/{self.dataset}.h5"


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


class ExecutionSettings(Settings):
    """Inference on the test set, clean and damaged."""

    n_images: int = setting(
        N_TEST,
        "Test images of the two conditions that the verdict asks for: clean, and the right half "
        "hidden with known mask.",
        unit="images",
        ge=100,
        le=N_TEST,
    )
    n_damaged: int = setting(
        500, "Test images of every other condition.", unit="images", ge=50, le=N_TEST
    )
    starts: Literal["amortised", "classes"] = setting(
        "classes",
        "Where the states of damaged images start: where recognition puts them, or also at the "
        "mean of every class, the lowest free energy deciding.",
    )


class InspectionSettings(Settings):
    """What is looked at of the states."""

    n_images: int = setting(2000, "Test images.", unit="images", ge=100, le=N_TEST)
    n_projected: int = setting(
        1500, "Images in the projection to a plane.", unit="images", ge=50, le=N_TEST
    )


class GenerationSettings(Settings):
    """Digits drawn from the model."""

    n_per_class: int = setting(100, "Digits of every class.", unit="images", ge=10)
    n_interpolations: int = setting(6, "Pairs of images to interpolate.", unit="pairs", ge=1)


class ActiveSettings(Settings):
    """Learning the classes from few labels: which images to ask about."""

    n_pool: int = setting(
        5000, "Training images that can be asked about.", unit="images", ge=500, le=N_TRAINING
    )
    n_initial: int = setting(2, "Labels of every class at the start.", unit="labels", ge=1)
    n_query: int = setting(10, "Labels asked for at a time.", unit="labels", ge=1)
    n_labels: int = setting(200, "Labels in all at the end.", unit="labels", ge=20)
    n_repeats: int = setting(10, "Repetitions with other initial labels.", ge=2)
    n_epochs: int = setting(
        20, "Passes over the pool in which the network learns without labels.", unit="epochs", ge=1
    )
    learning_rate: float = setting(4e-3, "Learning rate of that at the start.", gt=0)

    @model_validator(mode="after")
    def _something_to_ask(self) -> "ActiveSettings":
        first = N_CLASSES * self.n_initial
        if not first < self.n_labels <= self.n_pool:
            raise ValueError(
                f"n_labels ({self.n_labels}) must lie above the {first} initial labels and not "
                f"above n_pool ({self.n_pool})."
            )
        return self


class ExpectedSettings(Settings):
    """What the verdict asks for, beside what holds for every run."""

    mse_top: float | None = setting(
        None, "Largest error of the images from the top level.", unit="1/pixel", gt=0
    )
    mse_level0: float | None = setting(
        None, "Largest error of the images from level 0.", unit="1/pixel", gt=0
    )
    accuracy: float | None = setting(None, "Smallest accuracy, amortised.", gt=0, le=1)
    accuracy_free_energy: float | None = setting(
        None, "Smallest accuracy by free energy.", gt=0, le=1
    )
    occlusion_mse_drop: float | None = setting(
        None,
        "Smallest fall of the error by inference where the right half is hidden, relative.",
        gt=0,
        lt=1,
    )
    occlusion_accuracy: float | None = setting(
        None, "Smallest accuracy by inference where the right half is hidden.", gt=0, le=1
    )
    consistency: float | None = setting(
        None,
        "Smallest fraction of generated digits that an independent classifier sees as their class.",
        gt=0,
        le=1,
    )
    source: str = setting("", "Where these numbers come from.")


MODELLED = ("seed", "data", "specification")
TRAINED = (*MODELLED, "training")


class RunSettings(config.RunSettings):
    """Everything that one run of the family depends on."""

    stage_sections: ClassVar = {
        "render": MODELLED,
        "train": TRAINED,
        "calibrate": TRAINED,
        "execute": (*TRAINED, "execution"),
        "inspect": (*TRAINED, "inspection"),
        "generate": (*TRAINED, "generation"),
        "query": (*TRAINED, "active"),
        "compare": MODELLED,
        "analyze": ("data", "expected"),
    }
    matched_sections: ClassVar = ("data", "training", "active")
    verdict_sections: ClassVar = (
        *TRAINED,
        *("execution", "inspection", "generation", "active", "expected"),
    )
    further_rules: ClassVar = (
        "plot",
        *(f"plot_{what}" for what in ("matrices", "reconstructions", "snapshots", "activations")),
        *(f"plot_{what}" for what in ("features", "representation", "errors", "digits")),
        *(f"plot_{what}" for what in ("robustness", "confusion", "active", "baselines")),
    )

    seed: int = setting(0, "Seed of all randomness of the run.", ge=0)
    data: DataSettings = setting(DataSettings(), "The images.")
    specification: tuple[str, ...] = setting(
        GNN_FILES, "The GNN files that specify the model, the most general first.", min_length=1
    )
    training: RGMTraining = setting(RGMTraining(), "How the network is trained.")
    execution: ExecutionSettings = setting(ExecutionSettings(), "Inference on the test set.")
    inspection: InspectionSettings = setting(InspectionSettings(), "A look at the states.")
    generation: GenerationSettings = setting(GenerationSettings(), "Digits drawn from the model.")
    active: ActiveSettings = setting(ActiveSettings(), "Active learning of the classes.")
    expected: ExpectedSettings = setting(ExpectedSettings(), "What the verdict asks for.")

    @property
    def products(self) -> tuple[str, ...]:
        """The files that the run ends in."""
        files = ["settings.json", "specification.gnn", "matrices.h5", "model.pt", "history.h5"]
        files += [f"{name}.h5" for name in ("calibration", "inference", "states", "digits")]
        files += ["active.h5", "baselines.h5", "analysis.json", "verdict.json"]
        drawn = [f"{figure}.{suffix}" for figure in FIGURES for suffix in ("pdf", "png")]
        return (*files, *drawn)

    def misfit(self) -> str | None:
        """Batches must fit the training images, the pool too."""
        n_train = self.data.n_train
        if self.training.batch_size > n_train:
            return (
                f"training.batch_size ({self.training.batch_size}) exceeds data.n_train "
                f"({n_train}): there would be no full batch."
            )
        if self.active.n_pool > n_train:
            return f"active.n_pool ({self.active.n_pool}) exceeds data.n_train ({n_train})."
        if self.training.batch_size > self.active.n_pool:
            return (
                f"training.batch_size ({self.training.batch_size}) exceeds active.n_pool "
                f"({self.active.n_pool}): there would be no full batch of unlabelled images."
            )
        steps = self.training.n_epochs * self.training.steps_per_epoch(n_train)
        if self.training.log_interval > steps:
            return (
                f"training.log_interval ({self.training.log_interval}) exceeds the {steps} steps "
                "of the run: nothing would be recorded."
            )
        return None


FIGURES = (
    *(f"matrices_{what}" for what in ("heatmaps", "spectra", "distributions", "conditions")),
    *("loss", "learning_rate", "reconstructions", "training_reconstructions", "activations"),
    *("features", "prototypes", "representation", "error_distributions", "generated_digits"),
    *("interpolations", "robustness", "restoration", "confusion", "free_energy"),
    *("active_learning", "comparison"),
)
"""The figures of a run."""
