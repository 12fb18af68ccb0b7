"""Settings of the `neural_rg` family.

Conventions: J = k_B = 1, so K = 1/T; energies of the field are dimensionless (nats). Default
values are those of Li and Wang, arXiv:1802.02840 (their first version's MERA runs).
"""

import math
from typing import ClassVar, Literal

from pydantic import field_validator, model_validator

from strata import config
from strata.config import Settings, TrainingSettings, setting

CRITICAL_TEMPERATURE = 2 / math.log(1 + math.sqrt(2))
"""Of the infinite square lattice, 2 / ln(1 + sqrt 2) in J / k_B (Onsager 1944)."""

MAX_COUPLING = 100.0
"""Largest coupling K taken, dimensionless; sinh(2K) overflows near K = 355."""

MAX_TRANSFER_LENGTH = 16
"""Longest square lattice that the transfer matrix takes; no other method reaches an open one."""


class TargetSettings(Settings):
    """The distribution to learn."""

    name: Literal["ising"] = setting(
        "ising", "Continuous (Hubbard-Stratonovich) form of the Ising model."
    )
    L: int = setting(4, "Linear size of the lattice.", unit="sites", ge=2)
    d: Literal[1, 2] = setting(2, "Dimension of the lattice.")
    boundary: Literal["periodic", "open"] = setting("periodic", "Boundary of the lattice.")
    T: float | None = setting(
        None,
        "Temperature; give T or K. With neither, a two-dimensional lattice takes the critical "
        "temperature 2 / ln(1 + sqrt 2) = 2.269185...",
        unit="J / k_B",
        gt=0,
    )
    K: float | None = setting(None, "Coupling J / (k_B T), instead of T.", unit="1", gt=0)

    @model_validator(mode="after")
    def _one_temperature(self) -> "TargetSettings":
        if self.T is not None and self.K is not None:
            raise ValueError(f"give T or K, not both; got T = {self.T} and K = {self.K}.")
        if self.d == 1 and self.T is None and self.K is None:
            raise ValueError("a one-dimensional lattice has no critical temperature; give T or K.")
        return self

    @model_validator(mode="after")
    def _within_reach(self) -> "TargetSettings":
        if self.coupling > MAX_COUPLING:
            raise ValueError(
                f"the coupling K = 1 / T may be {MAX_COUPLING:g} at most; got {self.coupling:g}."
            )
        if self.d == 2 and self.boundary == "open" and self.L > MAX_TRANSFER_LENGTH:
            raise ValueError(
                "no exact method reaches an open square lattice longer than "
                f"{MAX_TRANSFER_LENGTH}; got L = {self.L}; use periodic boundaries."
            )
        return self

    @property
    def coupling(self) -> float:
        """K = J / (k_B T)."""
        if self.K is not None:
            return self.K
        return 1.0 / (self.T if self.T is not None else CRITICAL_TEMPERATURE)

    @property
    def exact_file(self) -> str:
        """Where the exact answer stands; runs of one lattice and coupling share it."""
        lattice = f"{self.name}_L{self.L}_d{self.d}_{self.boundary}"
        return f"results/exact/{lattice}_K{self.coupling!r}.h5"

    @property
    def solve_options(self) -> dict[str, int | float | str]:
        """What `strata.neural_rg.solve` is asked, by the names of its options."""
        return {
            "length": self.L,
            "dimension": self.d,
            "boundary": self.boundary,
            "coupling": self.coupling,
        }

    @property
    def solve_arguments(self) -> str:
        """The same as a command line."""
        return " ".join(f"--{name} {value}" for name, value in self.solve_options.items())

    @property
    def temperature(self) -> float:
        """T in units of J / k_B."""
        return self.T if self.T is not None else 1.0 / self.coupling


class FlowSettings(Settings):
    """The network."""

    name: Literal["mera"] = setting(
        "mera", "Wiring: mera = multiscale entanglement renormalization ansatz."
    )
    n_disentanglers: int = setting(
        1, "Blocks per scale before the one that decimates (Ndis).", unit="blocks", ge=1
    )
    n_layers: int = setting(
        8, "Coupling layers per block, an even number (Nlayers).", unit="layers", ge=2
    )
    hidden_scale: int = setting(64, "Hidden width of the nets s (Hs).", unit="neurons", ge=1)
    hidden_shift: int = setting(64, "Hidden width of the nets t (Ht).", unit="neurons", ge=1)
    symmetrize: bool = setting(
        False, "Make the model even under x -> -x: p_sym(x) = (p(x) + p(-x)) / 2."
    )

    @field_validator("n_layers")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(
                "coupling layers come in pairs that transform one half of a patch each; expected "
                f"an even number, got {value}."
            )
        return value


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
    beta: float = setting(
        1.0,
        "Annealing: ln cosh(beta x) with beta rising linearly from here to 1 over the first half.",
        gt=0,
        le=1,
    )
    buffer_batches: int = setting(10, "Capacity of the replay buffer.", unit="batches", ge=2)
    evaluation_batch: int = setting(4096, "Model samples per evaluation.", unit="samples", ge=2)
    dtype: Literal["float32", "float64"] = setting("float32", "Number format.")

    @model_validator(mode="after")
    def _some_loss(self) -> "NeuralRGTraining":
        if self.delta == self.omega == self.epsilon == 0.0:
            raise ValueError("delta, omega and epsilon are all 0: there is no loss to minimise.")
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

    @model_validator(mode="after")
    def _kept_are_drawn(self) -> "SamplingSettings":
        if self.n_kept > self.n_chains:
            raise ValueError(
                f"n_kept ({self.n_kept}) exceeds n_chains ({self.n_chains}): fields are kept of "
                "one step of the chains."
            )
        return self


class ExpectedSettings(Settings):
    """What the verdict asks for, beside agreement with the exact answers."""

    gap: float | None = setting(
        None, "Largest gap of the variational bound to the exact -ln Z_x.", unit="nats", gt=0
    )
    acceptance: float | None = setting(
        None, "Smallest acceptance of the chains.", unit="1", gt=0, le=1
    )
    source: str = setting("", "Where these two numbers come from.")


class RunSettings(config.RunSettings):
    """Everything that one run of the family depends on."""

    stage_sections: ClassVar = {
        "train": ("seed", "target", "flow", "training"),
        "sample": ("seed", "target", "flow", "training", "sampling"),
        "analyze": ("target", "flow", "expected"),
        "plot": ("target", "flow"),
    }

    seed: int = setting(0, "Seed of all randomness of the run.", ge=0)
    target: TargetSettings = setting(TargetSettings(), "The distribution to learn.")
    flow: FlowSettings = setting(FlowSettings(), "The network.")
    training: NeuralRGTraining = setting(NeuralRGTraining(), "How it is trained.")
    sampling: SamplingSettings = setting(SamplingSettings(), "How it is used as a sampler.")
    expected: ExpectedSettings = setting(ExpectedSettings(), "What the verdict asks for.")

    shared_stages: ClassVar = ("exact",)

    @model_validator(mode="after")
    def _wiring_fits_lattice(self) -> "RunSettings":
        length = self.target.L
        if self.flow.name == "mera" and length & (length - 1):
            below = 1 << (length.bit_length() - 1)
            raise ValueError(
                f"target.L: a MERA halves the lattice until two sites are left, so L must be a "
                f"power of two; got {length} (nearest: {below} and {2 * below})."
            )
        return self
