"""Settings of the `hmm_rnn` family.

Default values of network and training are those of the original, E. Torre and others,
arXiv:2510.25674. Imports neither torch nor numpy.
"""

from typing import ClassVar, Literal

from pydantic import field_validator

from strata import config
from strata.config import Settings, setting
from strata.curves import Constant, Curve
from strata.hmm_rnn.hmm_settings import HMMSettings
from strata.hmm_rnn.mechanism_settings import MechanismSettings
from strata.hmm_rnn.training_settings import HMMTraining

MIN_ENTROPY_WORDS = 2
MAX_WORDS = 1000
"""Most words of the moment term: the square of their number is kept for each lag."""


class DataSettings(Settings):
    """Sequences of the hidden Markov model."""

    seq_len: int = setting(150, "Steps of a sequence.", unit="steps", ge=4)
    num_seq: int = setting(
        30000,
        "training.data fixed: sequences drawn; a third of them are for training.",
        unit="sequences",
        ge=30,
    )
    n_losses: int = setting(
        3, "Pairs of batches that a loss, its floor and its plateau are averaged over.", ge=2
    )


class NetworkSettings(Settings):
    """The recurrent network."""

    input_size: int = setting(100, "Normal random numbers that drive each step.", ge=1)
    hidden_size: int = setting(150, "Units of a layer.", unit="units", ge=3)
    num_layers: int = setting(1, "Layers.", unit="layers", ge=1, le=8)
    biased: tuple[bool, bool] = setting(
        (False, False), "Whether the recurrent layers, and whether the readout, have biases."
    )
    start: Literal["zero", "normal"] = setting(
        "zero", "State before the first step: zeros, or standard normal numbers."
    )


class EvaluationSettings(Settings):
    """What the trained network emits, held against the hidden Markov model."""

    weights: Literal["last", "best"] = setting(
        "last", "Which weights: those at the end, or of the best evaluation."
    )
    n_sequences: int = setting(
        20000, "Sequences of the network, and of the model.", unit="sequences", ge=500
    )
    n_matched: int = setting(
        5000,
        "Those of them, at most, that are matched one to one for distances (cubic in time).",
        unit="sequences",
        ge=100,
        le=10000,
    )
    n_many_to_one: int = setting(
        2000,
        "Those of them, at most, that are matched many to one, as the original did.",
        unit="sequences",
        ge=100,
    )
    max_lag: int = setting(48, "Longest lag of pairs of symbols.", unit="steps", ge=1, le=48)
    max_block: int = setting(
        6, "Longest word whose entropy is estimated.", unit="symbols", ge=MIN_ENTROPY_WORDS, le=10
    )
    n_free_chains: int = setting(8, "Long free runs of the network.", unit="chains", ge=2)
    n_free_steps: int = setting(20000, "Steps of each.", unit="steps", ge=1000)


class DynamicsSettings(Settings):
    """The network as a dynamical system: runs, decay, exponents, Jacobians."""

    burn_in: int = setting(200, "Steps before anything is measured.", unit="steps", ge=0)
    n_steps: int = setting(20000, "Steps of the driven run.", unit="steps", ge=500)
    n_points: int = setting(
        2000,
        "Points of the run that are kept; steps of the runs without input, and by input alone.",
        unit="points",
        ge=50,
    )
    n_starts: int = setting(100, "States from which the noise is switched off.", ge=2)
    n_free_steps: int = setting(500, "Steps without noise.", unit="steps", ge=20)
    n_exponents: int = setting(10, "Leading Lyapunov exponents.", ge=1)


class ExpectedSettings(Settings):
    """What the verdict asks of the network, beside what holds for every run; null asks nothing."""

    frequency_error: float | None = setting(0.01, "Largest error of a symbol's frequency.", gt=0)
    transition_error: float | None = setting(
        0.03, "Largest error of p(b right after a), for symbols a of occupancy 0.05 or more.", gt=0
    )
    rare_transition_error: float | None = setting(0.1, "The same, for rarer symbols a.", gt=0)
    volatility_error: float | None = setting(
        0.08, "Largest relative error of the mean number of changes of symbol.", gt=0
    )
    volatility_std_error: float | None = setting(
        0.2, "The same of its standard deviation over sequences.", gt=0
    )
    hidden_transition_error: float | None = setting(
        0.02,
        "Largest error of transitions of the hidden states that explain the network's symbols.",
        gt=0,
    )
    likelihood_ks: float | None = setting(
        0.04,
        "Largest Kolmogorov-Smirnov distance of the log-likelihoods of sequences.",
        gt=0,
        le=1,
    )
    likelihood_error: float | None = setting(
        0.015, "Largest difference of the log-likelihoods.", unit="nats/step", gt=0
    )
    skill: float | None = setting(0.9, "Smallest skill, (iid - loss) / (iid - floor).", gt=0, le=1)
    loss_to_floor: tuple[float, float] | None = setting(
        (0.9, 1.08), "Smallest and largest ratio of the loss to its floor."
    )

    @field_validator("loss_to_floor")
    @classmethod
    def _an_interval(cls, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
        if bounds is not None and not 0 < bounds[0] < bounds[1]:
            raise ValueError(f"expected two ascending positive numbers; got {list(bounds)}.")
        return bounds


PREPARED = ("seed", "hmm", "data", "training")
TRAINED = (*PREPARED, "network")
FIGURES = (
    "loss_curves",
    *("euclidean_distances", "observation_volatilities", "output_frequencies"),
    *("transition_matrices", "log_likelihood", "lagged_pairs", "dwell_times", "entropy_rate"),
    *("hidden_transitions", "latent_trajectory_2d", "explained_variance", "noise_free"),
    *("lyapunov_spectrum", "jacobian_spectrum", "readout_plane", "residency"),
    *("noise_sensitivity", "kick_neurons", "stochastic_resonance"),
)
"""The figures of a run, each as .pdf and .png."""
PAGES = ("latent_trajectory_3d.html",)
"""Pages to open in a browser."""


class RunSettings(config.RunSettings):
    """Everything that one run of the family depends on."""

    stage_sections: ClassVar = {
        "prepare": PREPARED,
        "train": TRAINED,
        "evaluate": (*TRAINED, "evaluation"),
        "reverse": (*TRAINED, "evaluation", "dynamics"),
        "dissect": (*TRAINED, "evaluation", "mechanism"),
        "analyze": ("expected",),
    }
    matched_sections: ClassVar = ("hmm", "data", "training", "network", "mechanism")
    verdict_sections: ClassVar = (*TRAINED, "evaluation", "dynamics", "expected")
    further_rules: ClassVar = (
        "plot",
        *(f"plot_{what}" for what in ("statistics", "likelihood", "memory")),
        *(f"plot_{what}" for what in ("trajectory", "dynamics", "mechanism")),
    )
    headline: ClassVar = (
        *("loss_to_floor", "skill", "frequency_error", "transition_error"),
        *("volatility_relative_error", "log_likelihood_difference", "likelihood_ks"),
        *("hidden_transition_error", "lyapunov_exponent"),
    )

    seed: int = setting(0, "Seed of all randomness of the run.", ge=0)
    hmm: HMMSettings = setting(HMMSettings(), "The hidden Markov model.")
    data: DataSettings = setting(DataSettings(), "Its sequences.")
    network: NetworkSettings = setting(NetworkSettings(), "The recurrent network.")
    training: HMMTraining = setting(HMMTraining(), "How the network is trained.")
    evaluation: EvaluationSettings = setting(
        EvaluationSettings(), "What it emits, against the model."
    )
    dynamics: DynamicsSettings = setting(DynamicsSettings(), "The network as a dynamical system.")
    mechanism: MechanismSettings = setting(MechanismSettings(), "How it changes its symbol.")
    expected: ExpectedSettings = setting(ExpectedSettings(), "What the verdict asks for.")

    @property
    def products(self) -> tuple[str, ...]:
        """The files that the run ends in."""
        files = ["settings.json", "hmm.h5", "model.pt", "history.h5", "evaluation.h5"]
        files += ["dynamics.h5", "mechanism.h5", "analysis.json", "verdict.json"]
        drawn = [f"{figure}.{suffix}" for figure in FIGURES for suffix in ("pdf", "png")]
        return (*files, *drawn, *PAGES)

    @property
    def curve(self) -> Curve:
        """The loss over that of the model's own sequences against each other."""
        return Curve(
            metric="loss_to_floor",
            label="loss over that of the model against itself",
            unit="1",
            exact=Constant(1.0, "the model against itself"),
        )

    def misfit(self) -> str | None:
        """Curriculum stages are shorter than the sequences; words are few enough and fit; groups
        leave units to compare with.
        """
        for stage in self.training.curriculum:
            if stage.seq_len >= self.data.seq_len:
                return (
                    f"training.curriculum: a stage has seq_len {stage.seq_len}, not less than "
                    f"data.seq_len ({self.data.seq_len})."
                )
        moments = self.training.moments
        lengths = [stage.seq_len for stage in self.training.curriculum] + [self.data.seq_len]
        if moments.weight > 0 and moments.lags[0] + moments.word_length > min(lengths):
            return (
                f"training.moments: two words of {moments.word_length} symbols at lag "
                f"{moments.lags[0]} do not fit {min(lengths)} steps; give a smaller lag or longer "
                "sequences."
            )
        n_words = self.hmm.outputs**moments.word_length
        if moments.weight > 0 and n_words > MAX_WORDS:
            return (
                f"training.moments.word_length ({moments.word_length}) gives {n_words} words of "
                f"{self.hmm.outputs} symbols; at most {MAX_WORDS} are compared. Use shorter words."
            )
        n_units = self.network.hidden_size * self.network.num_layers
        if self.mechanism.group_size > n_units // 2:
            return (
                f"mechanism.group_size ({self.mechanism.group_size}) exceeds half of the network's "
                f"{n_units} units: too few would be left to compare with."
            )
        return None
