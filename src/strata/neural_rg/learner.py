"""What one training step of the family does: chains, buffer, and the loss.

    loss = delta * < -ln p(x) >_data + omega * < ln p(x) - ln pi~(x) >_p + epsilon * < -ln A >

Conventions: pi~ is the unnormalized target, p the flow, A the acceptance probability of a proposal;
natural logarithms. The variational term bounds -ln Z_x from above and meets it where p = pi.

With exact samples, <ln pi~ - ln p>_pi is the variational term's counterpart: it bounds ln Z_x from
above and meets it where p = pi. Their sum is KL(p || pi) + KL(pi || p), whatever Z_x.

Source: Li and Wang, arXiv:1802.02840, eqs. 4-6. The estimator is theirs; its cost is not: chains
run without gradient and all their silent proposals are drawn at once, ln p of a proposal comes from
the pass that generates it, and ln p of the present state is kept with it. With epsilon > 0 the
acceptance term is differentiated through the measured step alone, not through the steps before it.
Everything random in a step is drawn first; the rest is a function of tensors, which a GPU replays
as one graph.

Processes that share a batch (`strata.parallel`) draw all of it and follow the chains of their part;
where these have been is gathered, so that each process holds the whole buffer. A data term over the
buffer waits for that in the middle of a step, which is then not replayed.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from strata.captured import CapturedLoss
from strata.neural_rg.config import NeuralRGTraining
from strata.neural_rg.exact_data import ExactFields
from strata.neural_rg.flows import GaussianFlow, Symmetrized
from strata.neural_rg.metropolis import (
    ChainState,
    ReplayBuffer,
    decided,
    log_acceptance,
    pushed,
    random_rows,
)
from strata.neural_rg.targets import Target
from strata.parallel import ALONE, Group
from strata.randomness import Generators

UNITS = {
    "loss": "nats",
    "gradient_norm": "nats",
    "variational": "nats",
    "variational_error": "nats",
    "data": "nats",
    "log_acceptance": "nats",
    "acceptance": "1",
    "observable": "1",
    "positive_fraction": "1",
    "effective_sample_fraction": "1",
    "beta": "1",
    "proposed": "1",
    "chain": "1",
}
FORWARD_UNITS = {"forward": "nats", "forward_error": "nats"}

Fields = Float[Tensor, "batch *lattice"]
Held = Float[Tensor, "held *lattice"]
Visited = Float[Tensor, "visited *lattice"]


class FlowLearner:
    """A flow that learns a target from its own Markov chains and from the target's density.

    With `exact_data` the data term is taken over exact samples instead of the chains' buffer; with
    `held_out`, evaluations look at exact samples too. The loss and metrics of a step are those of
    this process's share of the batch; evaluations are of all.
    """

    def __init__(
        self,
        flow: GaussianFlow | Symmetrized,
        target: Target,
        settings: NeuralRGTraining,
        generators: Generators,
        exact_data: ExactFields | None = None,
        held_out: ExactFields | None = None,
        group: Group = ALONE,
    ) -> None:
        self.module = flow
        self.target = target
        self.settings = settings
        self.generators = generators
        self.group = group
        self.n_own = settings.batch // group.size
        example = torch.zeros(
            (1, *target.event_shape), device=generators.device, dtype=target.dtype
        )
        self.buffer = ReplayBuffer(settings.buffer_batches * settings.batch, example)
        self.exact_data = exact_data
        self.held_out = held_out
        self.chain = example
        self.is_measured = (
            *[False] * (settings.n_therm * (1 + settings.n_skip)),
            *([False] * settings.n_skip + [True]) * settings.n_steps,
        )
        self.replays = generators.device.type == "cuda" and not settings.detect_anomaly
        learns_from_buffer = settings.delta > 0 and exact_data is None
        self._gathers_last = group.size > 1 and not learns_from_buffer
        if group.size > 1 and learns_from_buffer:
            self.replays = False
        self._captured: CapturedLoss | None = None

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of every metric."""
        return UNITS if self.held_out is None else {**UNITS, **FORWARD_UNITS}

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss and its parts; moves the chains and feeds the buffer."""
        beta = self._annealing(step)
        start, uniforms, held, kept, *rest = self._draw()
        inside = (held[:0], kept[:0]) if self._gathers_last else (held, kept)
        inputs = (start, uniforms, *inside, *rest)
        if self._has_settled(beta):
            loss, found = self._replayed(inputs)
        else:
            loss, found = self._loss(*inputs, beta=beta)
        metrics = dict(found)
        buffer, visited = metrics.pop("buffer"), metrics.pop("visited")
        if self._gathers_last:
            visited = self._by_all(visited)
            buffer = pushed(held, visited, kept)
        self.buffer.fields, self.chain = buffer, visited[-self.settings.batch :]
        metrics["beta"] = torch.full_like(metrics["variational"], beta)
        return loss, metrics

    def _annealing(self, step: int) -> float:
        half = self.settings.steps // 2
        rise = min(1.0, step / half) if half else 1.0
        return self.settings.beta + (1.0 - self.settings.beta) * rise

    def _has_settled(self, beta: float) -> bool:
        """Return whether all further steps are alike, so that one graph serves them."""
        return self.replays and self.buffer.is_full and beta == 1.0

    def _replayed(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return what `_loss` does, from a CUDA graph made at the first call."""
        if self._captured is None:
            parameters = [p for p in self.module.parameters() if p.requires_grad]
            loss = functools.partial(self._loss, beta=1.0)
            self._captured = CapturedLoss(loss, parameters, inputs)
        else:
            torch._foreach_copy_(self._captured.inputs, inputs)
        return self._captured()

    def _draw(self) -> tuple[Tensor, ...]:
        """Return everything random in a step, this process's share, and the buffer."""
        settings, generators, batch = self.settings, self.generators, self.settings.batch
        share = self.group.share
        start = share(self._start(generators["chain"]))
        n_moves = len(self.is_measured)
        uniforms = torch.rand(
            (n_moves, batch),
            generator=generators["chain"],
            device=start.device,
            dtype=start.dtype,
        )
        kept = self.buffer.rows_kept(settings.n_steps * batch, generators["buffer"])
        data = start[:0]
        if settings.delta > 0 and self.exact_data:
            data = self.exact_data.draw(batch, generators["data"])
        elif settings.delta > 0:
            data = random_rows(len(kept), batch, generators["data"])
        noise = self.module.noise(n_moves * batch, generators["proposal"])
        if self.group.size > 1:
            noise = tuple(share(part.view(n_moves, batch, *part.shape[1:]), 1) for part in noise)
            noise = tuple(part.flatten(0, 1) for part in noise)
        return start, share(uniforms, 1), self.buffer.fields, kept, share(data), *noise

    def _by_all(self, visited: Fields) -> Visited:
        """Return where the chains of all processes have been, from where those of this one have."""
        by_move = visited.view(-1, self.n_own, *visited.shape[1:])
        return self.group.gathered(by_move, 1).flatten(0, 1)

    def _start(self, generator: torch.Generator) -> Tensor:
        """Return where the buffer left the chains; at first, independent normal variables."""
        batch = self.settings.batch
        if len(self.buffer) > batch:
            return self.buffer.draw(batch, generator)
        return torch.randn(
            (batch, *self.target.event_shape),
            generator=generator,
            device=generator.device,
            dtype=self.target.dtype,
        )

    def _loss(
        self,
        start: Fields,
        uniforms: Float[Tensor, "move batch"],
        held: Held,
        kept: Int64[Tensor, " kept"],
        data: Tensor,
        *noise: Tensor,
        beta: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, its parts, and where it leaves chains and buffer; never waits for a GPU.

        Args:
            start: where the chains begin.
            uniforms: what decides about each move of each chain.
            held: the buffer.
            kept: the rows that stay in it (see `strata.neural_rg.metropolis.pushed`); none, as in
                `held`, where the chains of several processes are gathered after the step.
            data: exact fields, or the rows of the buffer, after that, that are learnt from.
            noise: of all proposals, the silent ones first.
        """
        settings = self.settings
        n_measured = settings.n_steps * self.n_own
        with torch.no_grad():
            silent = self._silent([part[:-n_measured] for part in noise], beta)
            state = self._weighted(start, beta)
        with torch.set_grad_enabled(settings.omega > 0 or settings.epsilon > 0):
            measured = self._proposals([part[-n_measured:] for part in noise], beta)
        before, after, accepted = self._moved(state, silent, self._by_move(measured), uniforms)
        present = before.log_weight
        if settings.epsilon > 0:
            present = self._weighted(before.fields, beta).log_weight
        parts = {
            "variational": -measured.log_weight.mean(),
            "log_acceptance": log_acceptance(present, measured.log_weight).mean(),
            "acceptance": accepted.to(present.dtype).mean(),
            "observable": self.target.observable(after.fields).mean(),
        }
        visited = after.fields if self._gathers_last else self._by_all(after.fields)
        buffer = pushed(held, visited, kept)
        loss = settings.omega * parts["variational"] - settings.epsilon * parts["log_acceptance"]
        if settings.delta > 0:
            x = data if self.exact_data else buffer.index_select(0, data)
            parts["data"] = -self.module.log_prob(x).mean()
            loss = loss + settings.delta * parts["data"]
        metrics = {name: part.detach() for name, part in parts.items()}
        if not self._gathers_last:
            visited = visited[-settings.batch :]
        return loss, {**metrics, "buffer": buffer, "visited": visited}

    def _weighted(self, x: Fields, beta: float) -> ChainState:
        return ChainState(x, self.target.log_density(x, beta) - self.module.log_prob(x))

    def _proposals(self, noise: Sequence[Tensor], beta: float) -> ChainState:
        """Return fields of the model with their ln w, all from one pass."""
        path = torch.is_grad_enabled() and self.settings.estimator == "path"
        x, log_prob = self.module.from_noise(tuple(noise), path=path)
        return ChainState(x, self.target.log_density(x, beta) - log_prob)

    def _silent(self, noise: Sequence[Tensor], beta: float) -> Iterator[ChainState]:
        """Yield the proposals of the moves that nobody measures, if there are any."""
        return self._by_move(self._proposals(noise, beta)) if len(noise[0]) else iter(())

    def _by_move(self, proposals: ChainState) -> Iterator[ChainState]:
        n = self.n_own
        return map(ChainState, proposals.fields.split(n), proposals.log_weight.split(n))

    @torch.no_grad()
    def _moved(
        self,
        state: ChainState,
        silent: Iterator[ChainState],
        measured: Iterator[ChainState],
        uniforms: Float[Tensor, "move batch"],
    ) -> tuple[ChainState, ChainState, Bool[Tensor, " moves"]]:
        """Return the chains before and after each measured move, and whether it was accepted.

        One measured move stands behind the other.
        """
        before, after, accepted = [], [], []
        for is_measured, uniform in zip(self.is_measured, uniforms, strict=True):
            moved, decision = decided(state, next(measured if is_measured else silent), uniform)
            if is_measured:
                before.append(state)
                after.append(moved)
                accepted.append(decision)
            state = moved
        return _joined(before), _joined(after), torch.cat(accepted)

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, Tensor]:
        """Return the quality of the present weights, from fresh samples."""
        n = self.settings.evaluation_batch
        noise = self.module.noise(n, self.generators["eval"])
        x, log_prob = self.module.from_noise(tuple(map(self.group.share, noise)))
        log_weight = self.group.gathered(self.target.log_density(x) - log_prob)
        is_positive = (self.target.order_parameter(x) > 0).to(x.dtype)
        return {
            "variational": -log_weight.mean(),
            "variational_error": log_weight.std() / n**0.5,
            "effective_sample_fraction": effective_sample_fraction(log_weight),
            "observable": self.group.gathered(self.target.observable(x)).mean(),
            "positive_fraction": self.group.gathered(is_positive).mean(),
            **self._forward(n),
        }

    def _forward(self, n: int) -> dict[str, Tensor]:
        """Return <ln pi~ - ln p> over n exact fields that no step has learnt from, if there are."""
        if self.held_out is None:
            return {}
        x = self.group.share(self.held_out.draw(n, self.generators["eval data"]))
        log_weight = self.group.gathered(self._weighted(x, 1.0).log_weight)
        return {"forward": log_weight.mean(), "forward_error": log_weight.std() / n**0.5}

    @torch.no_grad()
    def snapshot(self) -> Mapping[str, Tensor]:
        """Return fields of the model, from the same latents each time, and of the chains."""
        n = min(self.settings.n_snapshot, self.settings.batch)
        x, _ = self.module.sample(n, self.generators.afresh("snapshot"))
        return {"proposed": x, "chain": self.chain[:n]}

    def state_dict(self) -> dict[str, Any]:
        """Return what evolves beside the weights: the buffer."""
        return {"buffer": self.buffer.fields}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a stored buffer."""
        self.buffer.fields = state["buffer"].to(self.generators.device)


def _joined(states: Sequence[ChainState]) -> ChainState:
    return ChainState(
        torch.cat([state.fields for state in states]),
        torch.cat([state.log_weight for state in states]),
    )


def effective_sample_fraction(log_weight: Tensor) -> Tensor:
    """Return Kish's effective sample size per sample, (sum w)^2 / (n sum w^2)."""
    total = 2.0 * torch.logsumexp(log_weight, 0) - torch.logsumexp(2.0 * log_weight, 0)
    return torch.exp(total) / len(log_weight)
