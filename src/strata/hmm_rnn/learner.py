"""What one training step of the family does: a batch of each source, and their distance.

Conventions: `transport` is the transport cost OT(network, model), `moments` the unweighted moment
term, `activity` the mean of ln(1 + h) over units, steps and sequences; self costs of the Sinkhorn
divergence enter the training loss only where they have a gradient. Evaluations take new sequences
of full length at the final blur: `loss` is the debiased divergence, `objective` adds the weighted
moment term, errors are against exact values for sequences of this length. `likelihood_difference`
is in nats per step, network minus model, under the model.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from strata.captured import CapturedLoss
from strata.errors import UserError
from strata.hmm_rnn.exact import pair_moments, volatility
from strata.hmm_rnn.filtering import log_likelihoods
from strata.hmm_rnn.measurements import RARE_OCCUPANCY
from strata.hmm_rnn.moments import MomentTerm, exact_moments, fitting_lags
from strata.hmm_rnn.reference import Reference, loss_of, one_hot_points, transport
from strata.hmm_rnn.rnn import NoiseDrivenRNN, emitted
from strata.hmm_rnn.sequences import output_transitions, volatilities
from strata.hmm_rnn.streams import FixedSequences, FreshSequences, Stream
from strata.hmm_rnn.training_settings import HMMTraining
from strata.randomness import Generators

SURE_BLUR, SURE_SCALING = 0.15, 0.5  # below, exponentials of one-hot sequences can overflow
SELF_COST_IGNORED = 1e-6  # weight of other points in a softmin of distances from a point


class SequenceLearner:
    """A network that learns to emit what a hidden Markov model emits.

    Args:
        network: the network, on the device of the generators.
        reference: the model and its losses.
        settings: how to train.
        seq_len: steps of a sequence.
        num_seq: sequences drawn with `data: fixed`.
        random_start: whether states start standard normal instead of zero.
        generators: the run's.
    """

    def __init__(
        self,
        network: NoiseDrivenRNN,
        reference: Reference,
        settings: HMMTraining,
        *,
        seq_len: int,
        num_seq: int,
        random_start: bool,
        generators: Generators,
    ) -> None:
        self.module = network
        self.reference = reference
        self.settings = settings
        self.seq_len = seq_len
        self.random_start = random_start
        self.generators = generators
        self.model = reference.model.to(generators.device)
        self.stream = self._stream(num_seq)
        self.steps_done = 0
        self._terms: dict[int, MomentTerm | None] = {}
        self._graphs: dict[tuple[int, int], CapturedLoss] = {}
        self._warned = False
        law = pair_moments(self.model, seq_len, [1])[0]
        self._frequencies = law.sum(1)
        self._transitions = law / law.sum(1, keepdim=True)
        self._volatility = volatility(reference.model, seq_len)

    def _stream(self, num_seq: int) -> Stream:
        size = self.settings.batch_size
        if self.settings.data == "fresh":
            return FreshSequences(self.model, size, self.generators)
        return FixedSequences(self.model, num_seq // 3, self.seq_len, size, self.generators)

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of every metric."""
        ones = ("transport", "moments", "activity", "blur", "objective", "skill", "loss_to_floor")
        errors = ("frequency_error", "transition_error", "volatility_ratio")
        return {
            **dict.fromkeys((*ones, *errors), "1"),
            "seq_len": "steps",
            "likelihood_difference": "nats/step",
        }

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss and its parts."""
        seq_len, blur = self.length_at(step), self.blur_at(step)
        wanted = self.stream.batch(step, seq_len)
        self.steps_done = step + 1
        if not self._never_waits(wanted) or self.settings.blur_start is not None:
            drawn = self._draw(len(wanted), seq_len, self.generators["train"])
            return self._loss(*drawn, wanted, blur=blur)
        captured = self._captured_loss(wanted)
        noise, start, gumbel, target = captured.inputs
        self._draw_into(noise, start, gumbel, self.generators["train"])
        target.copy_(wanted)
        return captured()

    def _never_waits(self, wanted: Tensor) -> bool:
        """Return whether a GPU goes on without the host: where exponentials surely suffice."""
        settings = self.settings
        return wanted.is_cuda and settings.blur >= SURE_BLUR and settings.scaling >= SURE_SCALING

    def _captured_loss(self, wanted: UInt8[Tensor, "sequence step"]) -> CapturedLoss:
        """Return the loss as a CUDA graph, made at the first batch of this shape."""
        shape = (wanted.shape[0], wanted.shape[1])
        if shape not in self._graphs:
            example = torch.Generator(wanted.device).manual_seed(0)
            inputs = (*self._draw(*shape, example), wanted.clone())
            parameters = [p for p in self.module.parameters() if p.requires_grad]
            self._graphs[shape] = CapturedLoss(
                functools.partial(self._loss, blur=self.settings.blur), parameters, inputs
            )
        return self._graphs[shape]

    def _loss(
        self,
        noise: Float[Tensor, "step sequence input"],
        start: Float[Tensor, "sequence layer unit"],
        gumbel: Float[Tensor, "step sequence symbol"],
        wanted: UInt8[Tensor, "sequence step"],
        *,
        blur: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts; the host need not wait for a GPU."""
        n_sequences, seq_len = wanted.shape
        emission, activity = self._emission(noise, start, gumbel)
        x = emission.transpose(0, 1).flatten(1)
        y = one_hot_points(wanted, self.model.n_symbols)
        how = transport(
            seq_len,
            self.model.n_symbols,
            blur=blur,
            scaling=self.settings.scaling,
            form="exponential" if self._never_waits(wanted) else "auto",
        )
        loss = cost = how.cost(x, y)
        if n_sequences * math.exp(-1.0 / blur**2) > SELF_COST_IGNORED:
            loss = loss - how.self_cost(x) / 2
        metrics = {"transport": cost.detach(), "activity": activity.detach()}
        if self.settings.activity_weight > 0:
            loss = loss + self.settings.activity_weight * activity
        term = self._moment_term(seq_len)
        if term is not None:
            moments = term(emission)
            metrics["moments"] = moments.detach()
            loss = loss + self.settings.moments.weight * moments
        metrics |= {"seq_len": cost.new_full((), seq_len), "blur": cost.new_full((), blur)}
        return loss, metrics

    def length_at(self, step: int) -> int:
        """Return the steps of the sequences at a training step: those of the curriculum."""
        progress = step / self.settings.steps
        for stage in self.settings.curriculum:
            if progress < stage.until:
                return stage.seq_len
        return self.seq_len

    def blur_at(self, step: int) -> float:
        """Return the blur at a training step, which falls over the first half of the steps."""
        first, last = self.settings.blur_start, self.settings.blur
        if first is None:
            return last
        progress = min(1.0, 2.0 * step / self.settings.steps)
        return first * (last / first) ** progress

    def _draw(
        self, n_sequences: int, seq_len: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the noise, the start and the Gumbel numbers of new sequences."""
        network = self.module
        noise = network.readout_weight.new_empty(seq_len, n_sequences, network.input_size)
        start = network.zero_start(n_sequences)
        gumbel = noise.new_empty(seq_len, n_sequences, network.output_size)
        self._draw_into(noise, start, gumbel, generator)
        return noise, start, gumbel

    def _draw_into(
        self, noise: Tensor, start: Tensor, gumbel: Tensor, generator: torch.Generator
    ) -> None:
        if self.random_start:
            start.normal_(generator=generator)
        noise.normal_(generator=generator)
        gumbel.exponential_(generator=generator).log_().neg_()

    def _emission(
        self,
        noise: Float[Tensor, "step sequence input"],
        start: Float[Tensor, "sequence layer unit"],
        gumbel: Float[Tensor, "step sequence symbol"],
    ) -> tuple[Float[Tensor, "step sequence symbol"], Float[Tensor, ""]]:
        """Return one-hot symbols of sequences, and the mean of ln(1 + activity)."""
        network = self.module
        hidden = network.hidden(noise, start)
        activity = torch.stack([states.log1p().mean() for states in hidden]).mean()
        return emitted(network.logits(hidden[-1]), gumbel, self.settings.tau), activity

    def _moment_term(self, seq_len: int) -> MomentTerm | None:
        if seq_len not in self._terms:
            self._terms[seq_len] = self._new_moment_term(seq_len)
        return self._terms[seq_len]

    def _new_moment_term(self, seq_len: int) -> MomentTerm | None:
        asked = self.settings.moments
        lags = fitting_lags(asked.lags, asked.word_length, seq_len)
        if asked.weight == 0 or not lags:
            return None
        exact = exact_moments(self.reference.model, seq_len, asked.word_length, lags)
        softening = asked.softening if asked.metric == "chi2" else None
        weight = self.module.readout_weight
        return MomentTerm(exact.to(weight.device, weight.dtype), asked.word_length, lags, softening)

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, Tensor]:
        """Return the loss, the skill, and errors of new sequences."""
        settings, n_symbols = self.settings, self.model.n_symbols
        n = settings.batch_size
        drawn = self._draw(n, self.seq_len, self.generators["eval"])
        emission, activity = self._emission(*drawn)
        emitted_symbols = emission.argmax(-1).T
        wanted = self.model.sample(n, self.seq_len, self.generators["eval data"])[0]
        loss = loss_of(
            emitted_symbols, wanted, n_symbols, blur=settings.blur, scaling=settings.scaling
        )
        found = {"loss": loss, "objective": loss, "skill": self.reference.skill(loss)}
        found |= {"loss_to_floor": loss / self.reference.floor, "activity": activity}
        term = self._moment_term(self.seq_len)
        if term is not None:
            found["moments"] = term(emission)
            found["objective"] = loss + settings.moments.weight * found["moments"]
        likelihoods = (
            log_likelihoods(self.model, symbols).mean() / self.seq_len
            for symbols in (emitted_symbols, wanted)
        )
        found["likelihood_difference"] = next(likelihoods) - next(likelihoods)
        self._look_for_plateau(float(found["skill"]))
        return {**found, **self._symbol_errors(emitted_symbols)}

    def _symbol_errors(self, symbols: Int64[Tensor, "sequence step"]) -> dict[str, Tensor]:
        transitions, occupancy = output_transitions(symbols, self.model.n_symbols)
        frequent = self._frequencies >= RARE_OCCUPANCY
        errors = (transitions - self._transitions)[frequent].abs().nan_to_num(nan=1.0)
        return {
            "frequency_error": (occupancy - self._frequencies).abs().max(),
            "transition_error": errors.max() if len(errors) else errors.new_full((), torch.nan),
            "volatility_ratio": volatilities(symbols).mean() / self._volatility,
        }

    def _look_for_plateau(self, skill: float) -> None:
        asked = self.settings.plateau_detection
        if self._warned or self.steps_done < asked.after or not skill < asked.min_skill:
            return
        sentence = (
            f"step {self.steps_done}: skill {skill:.3f}, below {asked.min_skill}: the network "
            "emits little more than independent symbols; give training.moments.weight, a "
            "training.curriculum, or another seed."
        )
        if asked.then == "stop":
            raise UserError(sentence)
        print(sentence, flush=True)
        self._warned = True

    def snapshot(self) -> Mapping[str, Tensor]:
        """Return nothing: no snapshots are kept."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what evolves beside the weights: the number of steps, and what was said."""
        return {"steps_done": self.steps_done, "warned": self._warned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on at a stored step."""
        self.steps_done, self._warned = state["steps_done"], state["warned"]
