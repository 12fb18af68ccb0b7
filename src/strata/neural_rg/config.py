"""Settings of the `neural_rg` family.

Conventions: J = k_B = 1, so K = 1/T; energies of the field are dimensionless (nats). Default
values are those of Li and Wang, arXiv:1802.02840 (their first version's MERA runs). Imports neither
torch nor numpy.
"""

from typing import ClassVar, Literal

from pydantic import field_validator, model_validator

from strata import config
from strata.config import Settings, file_names, setting
from strata.curves import Curve, Stored
from strata.neural_rg.flow_settings import FlowSettings, MeraSettings, PatchFlow
from strata.neural_rg.target_settings import IsingSettings, TargetSettings
from strata.training_settings import TrainingSettings

MIN_SAMPLES = 64
"""Fewest samples that mutual information is estimated from."""


class NeuralRGTraining(TrainingSettings):
    """The loss: delta * data + omega * variational + epsilon * acceptance term."""

    lr: float = setting(1e-3, "Learning rate at the start.", gt=0)
    weight_decay: float = setting(1e-3, "L2 penalty added to the gradient by Adam.", ge=0)
    batch: int = setting(
        1024, "Markov chains, proposals and data samples per step.", unit="samples", ge=1
    )
    n_therm: int = setting(
        5, "Metropolis steps per update that are not measured (Ntherm).", unit="steps", ge=0
    )
    n_steps: int = setting(
        1, "Metropolis steps per update that are measured (Nsteps).", unit="steps", ge=1
    )
    n_skip: int = setting(
        0, "Further steps before every one of those (Nskips).", unit="steps", ge=0
    )
    delta: float = setting(1.0, "Weight of the data term, -ln p on chain samples.", ge=0)
    omega: float = setting(
        0.5, "Weight of the variational term, ln p - ln pi on model samples.", ge=0
    )
    epsilon: float = setting(0.0, "Weight of the acceptance term, -ln A of proposals.", ge=0)
    estimator: Literal["reparametrized", "path"] = setting(
        "reparametrized",
        "Gradient of the variational term: all of it, or along the samples' paths alone, without "
        "the score term, which is zero on average and noise near the optimum.",
    )
    beta: float = setting(
        1.0,
        "Annealing: beta rises linearly from here to 1 over the first half of the steps; it stands "
        "in ln cosh(beta x) of the Ising field and in front of the other log-densities.",
        gt=0,
        le=1,
    )
    data: Literal["replay", "exact"] = setting(
        "replay",
        "What the data term learns from: the chains' own replay buffer, or exact samples of the "
        "Ising field (cluster spins, then the conditional field); the last eighth of their chains "
        "is kept for the evaluations.",
    )
    buffer_batches: int = setting(10, "Capacity of the replay buffer.", unit="batches", ge=2)
    evaluation_batch: int = setting(4096, "Model samples per evaluation.", unit="samples", ge=2)
    snapshot_every: int | None = setting(
        100, "Steps between two snapshots for the animation; null keeps none.", unit="steps", ge=1
    )
    n_snapshot: int = setting(
        64,
        "Fields in a snapshot, of the model and of the chains (batch at most).",
        unit="fields",
        ge=1,
    )
    dtype: Literal["float32", "float64"] = setting("float32", "Number format.")
    devices: int = setting(
        1,
        "GPUs of one machine (on the CPU: processes) that share the samples of each step and of "
        "each evaluation; what comes out is the same but for rounding.",
        unit="devices",
        ge=1,
    )

    @model_validator(mode="after")
    def _some_loss(self) -> "NeuralRGTraining":
        if self.delta == self.omega == self.epsilon == 0.0:
            raise ValueError("delta, omega and epsilon are all 0: there is no loss to minimise.")
        return self

    @model_validator(mode="after")
    def _equal_shares(self) -> "NeuralRGTraining":
        for key in ("batch", "evaluation_batch"):
            samples = getattr(self, key)
            if samples % self.devices:
                raise ValueError(
                    f"{key} ({samples}) is shared by devices ({self.devices}): expected a multiple."
                )
        return self

    @model_validator(mode="after")
    def _path_of_the_variational_term_alone(self) -> "NeuralRGTraining":
        if self.estimator == "path" and self.epsilon > 0:
            raise ValueError(
                "estimator: path leaves out a term that is zero on average in the variational "
                f"term, but not in the acceptance term; expected epsilon 0, got {self.epsilon:g}."
            )
        return self


class SamplingSettings(Settings):
    """Independence Metropolis chains with the trained flow as proposal."""

    weights: Literal["best", "last"] = setting("best", "Which weights of the run to use.")
    n_chains: int = setting(256, "Independent chains.", unit="chains", ge=2)
    n_steps: int = setting(1024, "Measured steps of each chain.", unit="steps", ge=2)
    n_therm: int = setting(1024, "Steps before those, not measured.", unit="steps", ge=0)
    n_kept: int = setting(
        64, "Configurations stored, of the model and of the chains.", unit="fields", ge=1
    )
    n_shown: int = setting(
        48,
        "First measured steps of one chain that are drawn (n_steps at most).",
        unit="steps",
        ge=1,
    )

    @model_validator(mode="after")
    def _kept_are_drawn(self) -> "SamplingSettings":
        if self.n_kept > self.n_chains:
            raise ValueError(
                f"n_kept ({self.n_kept}) exceeds n_chains ({self.n_chains}): fields are kept of "
                "one step of the chains."
            )
        return self


class HamiltonianSettings(Settings):
    """Hamiltonian Monte Carlo in latent and in physical space, side by side."""

    n_chains: int = setting(64, "Independent chains.", unit="chains", ge=2)
    n_therm: int = setting(
        200,
        "Trajectories before the measured ones; the step size is tuned in them.",
        unit="trajectories",
        ge=0,
    )
    n_steps: int = setting(400, "Measured trajectories.", unit="trajectories", ge=2)
    n_leapfrog: int = setting(10, "Leapfrog steps per trajectory.", unit="steps", ge=1)
    step_size: float = setting(0.2, "Leapfrog step, where the tuning begins.", gt=0)
    target_acceptance: float | None = setting(
        0.8, "Acceptance that the step size is tuned to; null keeps step_size.", gt=0, lt=1
    )

    @model_validator(mode="after")
    def _time_to_tune(self) -> "HamiltonianSettings":
        if self.target_acceptance is not None and self.n_therm == 0:
            raise ValueError(
                "the step size is tuned in the first n_therm trajectories, and n_therm is 0; raise "
                "it, or set target_acceptance to null."
            )
        return self


class DataSettings(Settings):
    """Exact samples of the Ising field: Swendsen-Wang spins, then the field given the spins."""

    n_chains: int = setting(64, "Independent chains.", unit="chains", ge=2)
    n_therm: int = setting(200, "Sweeps before the measured ones.", unit="sweeps", ge=0)
    n_sweeps: int = setting(2048, "Measured sweeps.", unit="sweeps", ge=2)
    every: int = setting(
        8, "Sweeps from one stored configuration to the next.", unit="sweeps", ge=1
    )

    @model_validator(mode="after")
    def _something_stored(self) -> "DataSettings":
        if self.every > self.n_sweeps:
            raise ValueError(
                f"every ({self.every}) exceeds n_sweeps ({self.n_sweeps}): nothing would be stored."
            )
        return self


class PictureSettings(Settings):
    """What is drawn of the network's scales."""

    n_fields: int = setting(4, "Draws whose fields are shown at every scale.", unit="fields", ge=1)
    n_averaged: int = setting(
        64, "Draws over which the responses to a latent are averaged.", unit="fields", ge=1
    )


class OriginalSettings(Settings):
    """A network that the original programs trained, instead of one trained here."""

    checkpoint: str = setting(..., "Its checkpoint file (epoch<number>), as a path.", min_length=1)
    parameters: str | None = setting(
        None, "Its _settings.h5 (MERA runs have one), to be checked against flow and target."
    )

    _names = field_validator("checkpoint", "parameters")(file_names)


class ExpectedSettings(Settings):
    """What the verdict asks for, beside agreement with the exact answers."""

    gap: float | None = setting(
        None, "Largest gap of the variational bound to the exact -ln Z_x.", unit="nats", gt=0
    )
    acceptance: float | None = setting(
        None, "Smallest acceptance of the chains.", unit="1", gt=0, le=1
    )
    forward_ratio: float | None = setting(
        None,
        "Largest ratio of the divergence of the model from the target, over exact samples of the "
        "Ising field, to the gap, which is the divergence of the target from the model.",
        unit="1",
        gt=0,
    )
    effective_sample_fraction: float | None = setting(
        None, "Smallest effective sample size per sample of the model.", unit="1", gt=0, le=1
    )
    source: str = setting("", "Where these numbers come from.")
    published: float | None = setting(
        None,
        "Smallest published gap for this target; a mark in the figure of a sweep, no check.",
        unit="nats",
        gt=0,
    )
    published_source: str = setting("", "Where that number comes from.")


RESPONSES = ("flipped", "difference", "gradient")
"""What is shown of a field when one latent variable changes."""

TRAINED = ("seed", "target", "flow", "training", "original")
"""The sections that a trained flow depends on."""


class RunSettings(config.RunSettings):
    """Everything that one run of the family depends on."""

    stage_sections: ClassVar = {
        "train": TRAINED,
        "sample": (*TRAINED, "sampling"),
        "evolve": (*TRAINED, "sampling", "hmc"),
        "renormalize": (*TRAINED, "sampling", "pictures"),
        "measure": (*TRAINED, "sampling"),
        "generate": ("seed", "target", "data"),
        "analyze": ("target", "flow", "hmc", "data", "expected"),
        "plot": ("target", "flow"),
        "compare": ("target", "expected"),
    }
    matched_sections: ClassVar = ("target", "flow")
    verdict_sections: ClassVar = (*TRAINED, "sampling", "hmc", "data", "expected")
    further_rules: ClassVar = (
        "exact",
        "import_original",
        *(f"plot_{what}" for what in ("configurations", "snapshots", "hamiltonian", "information")),
        *(f"plot_{what}" for what in ("renormalization", "responses")),
    )
    headline: ClassVar = (
        *("gap", "forward_gap", "effective_sample_fraction", "acceptance"),
        *("*_squared_chain", "exact_*_squared", "chain_length_over_tau"),
    )

    seed: int = setting(0, "Seed of all randomness of the run.", ge=0)
    target: TargetSettings = setting(
        IsingSettings(), "The distribution to learn.", discriminator="name"
    )
    flow: FlowSettings = setting(MeraSettings(), "The network.", discriminator="name")
    training: NeuralRGTraining = setting(NeuralRGTraining(), "How it is trained.")
    original: OriginalSettings | None = setting(
        None, "A network trained by the original programs, used instead of training one."
    )
    sampling: SamplingSettings = setting(SamplingSettings(), "How it is used as a sampler.")
    hmc: HamiltonianSettings = setting(
        HamiltonianSettings(), "Hamiltonian Monte Carlo through it and without it."
    )
    data: DataSettings = setting(DataSettings(), "Exact samples to learn from and to compare with.")
    pictures: PictureSettings = setting(PictureSettings(), "Pictures of its scales.")
    expected: ExpectedSettings = setting(ExpectedSettings(), "What the verdict asks for.")

    @property
    def products(self) -> tuple[str, ...]:
        """The files that the run ends in."""
        files = ["settings.json", "model.pt", "samples.h5", "hmc.h5"]
        figures = ["configurations", "hmc"]
        animations = ["configurations.gif"]
        if self.original is None:
            files.append("history.h5")
            figures.append("loss_acc")
            if self.training.snapshot_every is not None:
                animations.append("animation.gif")
        if self.has_exact_samples:
            files += ["ising_samples.h5", "information.h5"]
            figures.append("mutual_information")
        if self.flow.is_multiscale:
            files.append("renormalization.h5")
            figures.append("renormalized_fields")
            figures += [
                f"response_{kind}_scale{scale}"
                for kind in RESPONSES
                for scale in range(self.target.event_shape[0].bit_length() - 1)
            ]
        files += ["analysis.json", "verdict.json"]
        drawn = [f"{figure}.{suffix}" for figure in figures for suffix in ("pdf", "png")]
        return (*files, *drawn, *animations)

    @property
    def curve(self) -> Curve:
        """The variational free energy, which the exact one bounds from below."""
        return Curve(
            metric="variational",
            label="variational free energy",
            unit="nats",
            exact=Stored(
                self.target.exact_file.removeprefix("results/"),
                "log_partition_field",
                "exact \N{MINUS SIGN}ln Z",
                factor=-1.0,
            ),
            is_bound=True,
        )

    @property
    def sweep_products(self) -> tuple[str, ...]:
        """The files that a sweep of such runs ends in, beside `summary.csv`."""
        return ("quality.md", "quality.pdf", "quality.png")

    @property
    def has_exact_samples(self) -> bool:
        """Whether cluster updates can draw from the target."""
        return isinstance(self.target, IsingSettings)

    def misfit(self) -> str | None:
        """The flow must carry the target, an original's be theirs, exact data exist and suffice."""
        misfit = self.flow.misfit(self.target)
        if misfit is not None:
            return f"flow.name {self.flow.name}: {misfit}."
        if self.original is not None and not isinstance(self.flow, PatchFlow):
            return (
                "original: checkpoints of learn_mera.py and learn_tebd.py are read, so flow.name "
                f"must be mera or tebd; got {self.flow.name}."
            )
        if self.training.data == "exact" and not self.has_exact_samples:
            return (
                "training.data: exact samples can be drawn of the ising target; got "
                f"{self.target.name}; use replay."
            )
        if self.expected.forward_ratio is not None and not self.has_exact_samples:
            return (
                "expected.forward_ratio: exact samples can be drawn of the ising target; got "
                f"{self.target.name}; use null."
            )
        stored = self.data.n_chains * (self.data.n_sweeps // self.data.every)
        if self.has_exact_samples and stored < MIN_SAMPLES:
            return (
                f"data: n_chains * (n_sweeps // every) is {stored}, and mutual information takes "
                f"at least {MIN_SAMPLES} stored configurations."
            )
        return None
