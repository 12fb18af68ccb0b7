"""Settings of the `group_composition` family. Imports neither torch nor numpy."""

from typing import ClassVar, Literal

from pydantic import field_validator, model_validator

from strata import config
from strata.config import Settings, setting
from strata.curves import Curve, Stored
from strata.group_composition.group_settings import Cyclic, GroupSettings
from strata.group_composition.model_settings import ModelSettings
from strata.group_composition.template_settings import FourierTemplate, TemplateSettings
from strata.group_composition.training_settings import GroupTraining

MAX_SEQUENCES = 1_000_000
"""Most sequences that are listed or enumerated."""
MAX_AT_ONCE = 100_000
"""The same of those that one step sees at once."""


class TaskSettings(Settings):
    """What is multiplied."""

    k: int = setting(3, "Elements of a sequence.", unit="elements", ge=2, le=64)
    outputs: Literal["last", "every"] = setting(
        "last",
        "Targets: the product of all elements (last, sequence to one), or every product of the "
        "first 2, 3, ..., k elements (every, sequence to sequence).",
    )


class DataSettings(Settings):
    """Which sequences a step sees."""

    mode: Literal["online", "sampled", "exhaustive", "population"] = setting(
        "online",
        "online: new sequences at every step; sampled: num_samples sequences drawn once; "
        "exhaustive: all there are; population: the exact mean over all, without listing them "
        "(networks with one hidden layer).",
    )
    batch_size: int | None = setting(
        1000,
        "Sequences of a step; null takes all of them (sampled and exhaustive).",
        unit="sequences",
        ge=1,
    )
    num_samples: int = setting(
        100000, "sampled: sequences drawn.", unit="sequences", ge=1, le=10 * MAX_SEQUENCES
    )

    @model_validator(mode="after")
    def _some_batch(self) -> "DataSettings":
        if self.mode == "online" and self.batch_size is None:
            raise ValueError("mode online draws batches: give a batch_size.")
        return self


class SeedSettings(Settings):
    """Seeds, one for each kind of randomness."""

    template: int = setting(0, "Seed of the template.", ge=0)
    init: int = setting(0, "Seed of the initial weights of the first network.", ge=0)
    data: int = setting(0, "Seed of the sequences, which all networks of a run share.", ge=0)
    n_init: int = setting(
        1,
        "Networks trained side by side in one process, from the initial seeds init, init + 1, ...; "
        "each ends as it would alone, to rounding.",
        unit="networks",
        ge=1,
        le=1024,
    )


class EvaluationSettings(Settings):
    """What the networks are looked at with."""

    n_sequences: int = setting(
        2000,
        "Sequences of an evaluation; all there are if they are no more than this.",
        unit="sequences",
        ge=10,
        le=MAX_SEQUENCES,
    )


class InspectionSettings(Settings):
    """How the first network's weights are looked at; needs `training.snapshot_every`."""

    n_checkpoints: int = setting(
        5, "Snapshots that are looked at, first and last included.", ge=2, le=12
    )


class ExpectedSettings(Settings):
    """What the verdict asks for; null asks nothing."""

    n_drops: int | None = setting(
        None,
        "Drops that every network must make; null asks for all of them.",
        ge=0,
    )
    in_order: bool = setting(True, "Whether they must come in the predicted order.")
    plateaus: tuple[int, ...] | None = setting(
        None,
        "Numbers of the plateaus whose heights are held against theory, 1 after the first drop; "
        "null takes those after the drops that are asked for.",
    )
    plateau_error: float | None = setting(
        0.01, "Largest relative error of a plateau's height.", gt=0
    )
    jump_ratio: tuple[float, float] | None = setting(
        None, "Smallest and largest ratio of a drop's step to the predicted one, for those drops."
    )
    final_reduction: float | None = setting(
        None, "Largest final loss, as a share of the initial one.", gt=0
    )
    final_plateau: int | None = setting(
        None,
        "Number of drops after which the loss must stay for good (a network too narrow for more).",
        ge=0,
    )

    @field_validator("jump_ratio")
    @classmethod
    def _an_interval(cls, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
        if bounds is not None and not 0 < bounds[0] < bounds[1]:
            raise ValueError(f"expected two ascending positive numbers; got {list(bounds)}.")
        return bounds


class ComparisonSettings(Settings):
    """What a sweep's figure shows of its runs, side by side."""

    figure: Literal["losses", "steps_to_plateau", "widths"] = setting(
        "losses",
        "losses: loss curves and final losses; steps_to_plateau: steps until the first plateaus "
        "are reached, against k; widths: final loss against width, group order and k.",
    )
    n_plateaus: int = setting(
        4, "steps_to_plateau: how many plateaus.", unit="plateaus", ge=1, le=10
    )
    reach: float = setting(
        1.1, "steps_to_plateau: a plateau is reached at this many times its height.", gt=1
    )


PREDICTED = ("group", "template", "task", "data", "model", "training", "seeds")
TRAINED = (*PREDICTED, "evaluation")
FIGURES = (
    *("loss", "predictions", "power", "template", "fourier_modes", "irreps"),
    *("readout_neurons", "input_neurons", "phases"),
)
"""The figures of a run, each as .pdf and .png; networks with a mixing matrix have `mixing` too."""


class RunSettings(config.RunSettings):
    """Everything that one run of the family depends on."""

    stage_sections: ClassVar = {
        "predict": PREDICTED,
        "train": TRAINED,
        "inspect": (*TRAINED, "inspection"),
        "analyze": ("expected",),
        "compare": ("comparison",),
    }
    matched_sections: ClassVar = ("group", "template", "task", "data", "model", "training")
    verdict_sections: ClassVar = (*TRAINED, "expected")
    further_rules: ClassVar = (
        "plot",
        *(f"plot_{what}" for what in ("predictions", "power", "modes", "neurons", "mixing")),
        "summarize",
    )
    headline: ClassVar = (
        *("n_networks", "n_diverged", "n_drops", "in_order", "worst_plateau_error"),
        *("smallest_jump_ratio", "largest_jump_ratio", "reduction", "final_loss"),
    )
    seed_keys: ClassVar = ("seeds.template", "seeds.init", "seeds.data")

    group: GroupSettings = setting(Cyclic(), "The finite group.", discriminator="name")
    template: TemplateSettings = setting(
        FourierTemplate(), "The function on it that is translated.", discriminator="name"
    )
    task: TaskSettings = setting(TaskSettings(), "What is multiplied.")
    data: DataSettings = setting(DataSettings(), "Which sequences a step sees.")
    model: ModelSettings = setting(ModelSettings(), "The network.")
    training: GroupTraining = setting(GroupTraining(), "How it is trained.")
    seeds: SeedSettings = setting(SeedSettings(), "Seeds.")
    evaluation: EvaluationSettings = setting(EvaluationSettings(), "How it is looked at.")
    inspection: InspectionSettings = setting(
        InspectionSettings(), "How the first network's weights are looked at."
    )
    expected: ExpectedSettings = setting(ExpectedSettings(), "What the verdict asks for.")
    comparison: ComparisonSettings = setting(
        ComparisonSettings(), "What the figure of a sweep shows."
    )

    @property
    def optimizer(self) -> str:
        """The optimizer, `auto` decided."""
        if self.training.optimizer != "auto":
            return self.training.optimizer
        return "per_neuron" if self.model.has_one_power_layer else "adam"

    @property
    def degree(self) -> int:
        """Degree of homogeneity of the output in a neuron's weights, for per_neuron."""
        if self.training.degree is not None:
            return self.training.degree
        return self.task.k + 1

    @property
    def sequences_per_step(self) -> int:
        """Sequences that one step sees."""
        everything = self.group.order**self.task.k
        if self.data.mode == "population":
            return everything
        there_are = self.data.num_samples if self.data.mode == "sampled" else everything
        size = self.data.batch_size
        if self.data.mode == "online":
            return size or there_are
        return min(size or there_are, there_are)

    @property
    def products(self) -> tuple[str, ...]:
        """The files that the run ends in."""
        files = ["settings.json", "task.h5", "theory.md", "model.pt", "history.h5", "neurons.h5"]
        files += ["analysis.json", "seeds.csv", "staircase.md", "verdict.json"]
        figures = (*FIGURES, "mixing") if self.model.kind == "QuadraticRNN" else FIGURES
        return (*files, *(f"{name}.{suffix}" for name in figures for suffix in ("pdf", "png")))

    @property
    def curve(self) -> Curve:
        """The loss, on its way down the predicted plateaus, the last of them zero."""
        return Curve(
            metric="loss",
            label="loss",
            unit="1",
            exact=Stored("{run}/task.h5", "drops/after", "predicted plateaus"),
            log_axes="xy",
        )

    @property
    def sweep_products(self) -> tuple[str, ...]:
        """The files that a sweep of such runs ends in, beside its summary."""
        return ("statistics.csv", "statistics.md", "comparison.pdf", "comparison.png")

    def misfit(self) -> str | None:
        """Networks fit the length and the outputs, optimizers the network, data the group."""
        return self._misfit_of_network() or self._misfit_of_optimizer() or self._misfit_of_data()

    def _misfit_of_network(self) -> str | None:
        model, k = self.model, self.task.k
        if model.kind == "TwoLayerNet" and k != 2:
            return (
                f"model.kind TwoLayerNet multiplies two elements; task.k is {k}. Use SequentialMLP."
            )
        if self.task.outputs == "every" and model.kind != "QuadraticRNN":
            return (
                f"task.outputs every asks for an output after every element, which {model.kind} "
                "does not have; use QuadraticRNN, or outputs last."
            )
        if model.transform == "multiplicative" and model.kind != "QuadraticRNN":
            return (
                f"model.transform multiplicative is for QuadraticRNN; model.kind is {model.kind}."
            )
        if model.start == "exact" and model.nonlinearity != "square":
            return "model.start exact needs model.nonlinearity square."
        return None

    def _misfit_of_optimizer(self) -> str | None:
        kind, model = self.training.optimizer, self.model
        if kind == "hybrid" and model.kind != "QuadraticRNN":
            return (
                f"training.optimizer hybrid is for QuadraticRNN; model.kind is {model.kind}. Use "
                "adam, or per_neuron for networks of one hidden layer."
            )
        if kind == "per_neuron" and model.kind not in ("SequentialMLP", "TwoLayerNet"):
            return (
                f"training.optimizer per_neuron is for networks of one hidden layer; model.kind is "
                f"{model.kind}. Use adam, or hybrid for QuadraticRNN."
            )
        return None

    def _misfit_of_data(self) -> str | None:
        order, k, data = self.group.order, self.task.k, self.data
        if data.mode == "exhaustive":
            most = MAX_SEQUENCES if data.batch_size is not None else MAX_AT_ONCE
            if order**k > most:
                return (
                    f"data.mode exhaustive: {order}^{k} = {order**k:,} sequences are more than "
                    f"{most:,}; use online, or population."
                )
        has_population_loss = self.model.has_one_power_layer or (
            self.model.kind == "QuadraticRNN" and self.task.outputs == "last"
        )
        if data.mode == "population" and not has_population_loss:
            return (
                "data.mode population is for SequentialMLP, TwoLayerNet with the square, and "
                "QuadraticRNN with outputs last."
            )
        if isinstance(self.template, FourierTemplate) and isinstance(self.group, Cyclic):
            there_are = (order - 1) // 2
            if self.template.n_freqs > there_are:
                return (
                    f"template.n_freqs ({self.template.n_freqs}) exceeds the {there_are} "
                    f"frequencies of C_{order} that have a phase."
                )
        return None
