"""Settings of the `rgm` family.

What the model is (dimensions, activations, initialisation, message passing; or tiles, modes and
bins) stands in the GNN files that `specification` names; here stands what is done with it. `model`
says which of two it is: `continuous` is a network that is trained, with seed values of Adam at
1e-3, batches of 128 and the plateau schedule; `spm` has discrete states, which it takes from
exemplars, and counts. Imports neither torch nor numpy.
"""

from typing import ClassVar, Literal

from pydantic import field_validator, model_validator

from strata import config
from strata.config import Settings, canonical, file_names, setting
from strata.curves import Curve, Stored
from strata.rgm.discrete_settings import CountingSettings, StructureSettings
from strata.rgm.network_settings import RGMTraining

GNN_FILES = tuple(
    f"config/gnn/rgm_{part}.gnn"
    for part in ("base", "hierarchical_level", "message_passing", "mnist")
)
N_TRAINING, N_VALIDATION, N_TEST = 54000, 6000, 10000
"""Images of a dataset: the official training set without and the validation set, the test set."""
N_OFFICIAL = N_TRAINING + N_VALIDATION
LEAST_TRAINING = 1000  # images of the continuous model
N_CLASSES = 10
ACTIVE_STD = 0.01
"""A unit is active if its values over images have at least this standard deviation."""


class DataSettings(Settings):
    """Which images, and how many of them."""

    dataset: Literal["mnist", "fashion_mnist"] = setting("mnist", "The images.")
    part: Literal["train", "official"] = setting(
        "train",
        "Where training images come from: those that are not for validation, or, for the discrete "
        "model, the whole official training set in its order.",
    )
    n_train: int = setting(
        N_TRAINING,
        "Training images: the first of that part.",
        unit="images",
        ge=N_CLASSES,
        le=N_OFFICIAL,
    )
    n_validation: int = setting(
        N_VALIDATION, "Validation images.", unit="images", ge=100, le=N_VALIDATION
    )

    @property
    def file(self) -> str:
        """The file of the images."""
        return f"results/data/{self.dataset}.h5"


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
    accuracy_structure_only: float | None = setting(
        None,
        "Discrete model: smallest accuracy of the structure alone, before any image is learned.",
        gt=0,
        le=1,
    )
    accuracy_at_2000: float | None = setting(
        None, "Discrete model: smallest accuracy after 2,000 learned images.", gt=0, le=1
    )
    accuracy_at_10000: float | None = setting(
        None, "Discrete model: smallest accuracy after 10,000 learned images.", gt=0, le=1
    )
    accuracy_confident_half: float | None = setting(
        None,
        "Discrete model: smallest accuracy on the half of the test images whose class is surest.",
        gt=0,
        le=1,
    )
    quantization_mse: float | None = setting(
        0.003,
        "Discrete model: largest error of preprocessed images rebuilt from their own outcomes.",
        unit="1/pixel",
        gt=0,
    )
    source: str = setting("", "Where these numbers come from.")


MODELLED = ("model", "seed", "data", "specification")
TRAINED = (*MODELLED, "training")
STRUCTURED = (*MODELLED, "structure")
COUNTED = (*STRUCTURED, "counting")
FURTHER = ("execution", "generation", "active", "expected")


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
        "spm_render": STRUCTURED,
        "spm_train": COUNTED,
        "spm_execute": (*COUNTED, "execution"),
        "spm_generate": (*COUNTED, "generation"),
        "spm_query": (*COUNTED, "active"),
        "spm_compare": STRUCTURED,
        "spm_analyze": ("data", "expected"),
        "contrast": ("model", "data", "structure"),
    }
    matched_sections: ClassVar = ("model", "data", "training", "active", "structure", "counting")
    verdict_sections: ClassVar = (*TRAINED, "inspection", *FURTHER)
    further_rules: ClassVar = (
        "plot",
        *(f"plot_{what}" for what in ("matrices", "reconstructions", "snapshots", "activations")),
        *(f"plot_{what}" for what in ("features", "representation", "errors", "digits")),
        *(f"plot_{what}" for what in ("robustness", "confusion", "active", "baselines")),
        "plot_free_energy",
        *(f"spm_plot_{what}" for what in ("learning", "structure", "confidence")),
    )
    headline: ClassVar = (
        *("clean_accuracy_amortised", "clean_accuracy_inferred"),
        *("clean_mse_level?_amortised", "half_occlusion_0.5_known_accuracy_inferred"),
        *("generated_consistency", "baseline_accuracy_logistic_raw", "baseline_mse_pca_16"),
    )

    model: Literal["continuous", "spm"] = setting(
        "continuous",
        "continuous: a trained network; spm: discrete states learned from exemplars, and counts.",
    )
    seed: int = setting(0, "Seed of all randomness of the run.", ge=0)
    data: DataSettings = setting(DataSettings(), "The images.")
    specification: tuple[str, ...] = setting(
        GNN_FILES, "The GNN files that specify the model, the most general first.", min_length=1
    )
    training: RGMTraining = setting(RGMTraining(), "How the network is trained.")
    structure: StructureSettings = setting(
        StructureSettings(), "Where the discrete model's states come from."
    )
    counting: CountingSettings = setting(CountingSettings(), "How the discrete model learns.")
    execution: ExecutionSettings = setting(ExecutionSettings(), "Inference on the test set.")
    inspection: InspectionSettings = setting(InspectionSettings(), "A look at the states.")
    generation: GenerationSettings = setting(GenerationSettings(), "Digits drawn from the model.")
    active: ActiveSettings = setting(ActiveSettings(), "Active learning of the classes.")
    expected: ExpectedSettings = setting(ExpectedSettings(), "What the verdict asks for.")

    _names = field_validator("specification")(file_names)

    def verdict_json(self) -> str:
        """Return what the verdict depends on: what the stages of this model read."""
        if self.model == "continuous":
            return super().verdict_json()
        return canonical(self.model_dump(mode="json", include={*COUNTED, *FURTHER}))

    @property
    def products(self) -> tuple[str, ...]:
        """The files that the run ends in."""
        files = PRODUCTS if self.model == "continuous" else DISCRETE_PRODUCTS
        figures = FIGURES if self.model == "continuous" else DISCRETE_FIGURES
        drawn = [f"{figure}.{suffix}" for figure in figures for suffix in ("pdf", "png")]
        return ("settings.json", "specification.gnn", *files, "verdict.json", *drawn)

    @property
    def curve(self) -> Curve:
        """The accuracy, beside that of logistic regression on the pixels of the same images."""
        return Curve(
            metric="accuracy",
            label="accuracy",
            unit="1",
            exact=Stored("{run}/baselines.h5", "accuracy/logistic_raw", "logistic regression"),
            axis="training step" if self.model == "continuous" else "images learned",
        )

    @property
    def sweep_products(self) -> tuple[str, ...]:
        """The files that a sweep ends in, beside its summary."""
        return tuple(f"models.{suffix}" for suffix in ("csv", "md", "pdf", "png"))

    @property
    def n_exemplars(self) -> int:
        """Exemplars of all classes together, of the discrete model."""
        return N_CLASSES * self.structure.n_exemplars

    def misfit(self) -> str | None:
        """Parts of the settings must fit the number of images."""
        active, n_train = self.active, self.data.n_train
        if self.data.part == "train" and n_train > N_TRAINING:
            return (
                f"data.n_train ({n_train}) exceeds the {N_TRAINING} images that are not for "
                "validation; data.part: official has more."
            )
        if active.n_pool > n_train:
            return f"active.n_pool ({active.n_pool}) exceeds data.n_train ({n_train})."
        return self._misfit_of_counts() if self.model == "spm" else self._misfit_of_batches()

    def _misfit_of_counts(self) -> str | None:
        if self.n_exemplars >= self.data.n_train:
            return (
                f"structure.n_exemplars ({self.structure.n_exemplars} of each of {N_CLASSES} "
                f"classes) leaves no image of data.n_train ({self.data.n_train}) to learn."
            )
        return None

    def _misfit_of_batches(self) -> str | None:
        """Batches must fit the training images, the pool too."""
        n_train = self.data.n_train
        if self.data.part != "train":
            return "data.part: official leaves no images for validation, which training needs."
        if n_train < LEAST_TRAINING:
            return (
                f"data.n_train ({n_train}): the continuous model learns from at least "
                f"{LEAST_TRAINING} images."
            )
        if self.training.batch_size > n_train:
            return (
                f"training.batch_size ({self.training.batch_size}) exceeds data.n_train "
                f"({n_train}): there would be no full batch."
            )
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


PRODUCTS = (
    *("matrices.h5", "model.pt", "history.h5"),
    *(f"{name}.h5" for name in ("calibration", "inference", "states", "digits")),
    *("active.h5", "baselines.h5", "analysis.json"),
)
FIGURES = (
    *(f"matrices_{what}" for what in ("heatmaps", "spectra", "distributions", "conditions")),
    *("loss", "learning_rate", "reconstructions", "training_reconstructions", "activations"),
    *("features", "prototypes", "representation", "error_distributions", "generated_digits"),
    *("interpolations", "robustness", "restoration", "confusion", "free_energy"),
    *("active_learning", "comparison"),
)
"""The figures of a run."""

DISCRETE_PRODUCTS = (
    *(f"{name}.h5" for name in ("structure", "counts", "history", "inference", "digits")),
    *("active.h5", "baselines.h5", "analysis.json"),
)
DISCRETE_FIGURES = (
    *("structure", "learning_curve", "confidence", "robustness", "restoration", "confusion"),
    *("generated_digits", "interpolations", "active_learning"),
)
"""The figures of a run of the discrete model."""
