"""What one training step of the family does: chains, buffer, and the loss.

    loss = delta * < -ln p(x) >_data + omega * < ln p(x) - ln pi~(x) >_p + epsilon * < -ln A >

Conventions: pi~ is the unnormalized target, p the flow, A the acceptance probability of a proposal;
natural logarithms. The variational term bounds -ln Z_x from above and meets it where p = pi.

Source: Li and Wang, arXiv:1802.02840, eqs. 4-6. The estimator is theirs; its cost is not: chains
run without gradient and all their silent proposals are drawn at once, ln p of a proposal comes from
the pass that generates it, and ln p of the present state is kept with it. With epsilon > 0 the
acceptance term is differentiated through the measured step alone, not through the steps before it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from strata.neural_rg.config import NeuralRGTraining
from strata.neural_rg.exact_data import ExactFields
from strata.neural_rg.flows import GaussianFlow, Symmetrized
from strata.neural_rg.metropolis import (
    ChainState,
    ReplayBuffer,
    log_acceptance,
    metropolis_step,
)
from strata.neural_rg.targets import Target
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


class FlowLearner:
    """A flow that learns a target from its own Markov chains and from the target's density.

    With `exact_data` the data term is taken over exact samples instead of the chains' buffer.
    """

    units = UNITS

    def __init__(
        self,
        flow: GaussianFlow | Symmetrized,
        target: Target,
        settings: NeuralRGTraining,
        generators: Generators,
        exact_data: ExactFields | None = None,
    ) -> None:
        self.module = flow
        self.target = target
        self.settings = settings
        self.generators = generators
        example = torch.zeros(
            (1, *target.event_shape), device=generators.device, dtype=target.dtype
        )
        self.buffer = ReplayBuffer(settings.buffer_batches * settings.batch, example)
        self.exact_data = exact_data
        self.chain = example

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss and its parts; moves the chains and feeds the buffer."""
        settings, beta = self.settings, self._annealing(step)
        state = self._silent_steps(
            self._start(beta), settings.n_therm * (1 + settings.n_skip), beta
        )
        sums: dict[str, Tensor] = {}
        visited = []
        for _ in range(settings.n_steps):
            state = self._silent_steps(state, settings.n_skip, beta)
            state, parts = self._measured_step(state, beta)
            visited.append(state.fields)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value / settings.n_steps
        self.buffer.push(torch.cat(visited), self.generators["buffer"])
        loss = settings.omega * sums["variational"] - settings.epsilon * sums["log_acceptance"]
        self.chain = state.fields
        if settings.delta > 0:
            source = self.exact_data or self.buffer
            x = source.draw(settings.batch, self.generators["data"])
            sums["data"] = -self.module.log_prob(x).mean()
            loss = loss + settings.delta * sums["data"]
        metrics = {name: value.detach() for name, value in sums.items()}
        metrics["beta"] = torch.full_like(metrics["variational"], beta)
        return loss, metrics

    def _annealing(self, step: int) -> float:
        half = self.settings.steps // 2
        rise = min(1.0, step / half) if half else 1.0
        return self.settings.beta + (1.0 - self.settings.beta) * rise

    @torch.no_grad()
    def _start(self, beta: float) -> ChainState:
        """Take the chains up where the buffer left them; at first, from independent normals."""
        batch, generator = self.settings.batch, self.generators["chain"]
        if len(self.buffer) > batch:
            x = self.buffer.draw(batch, generator)
        else:
            x = torch.randn(
                (batch, *self.target.event_shape),
                generator=generator,
                device=generator.device,
                dtype=self.target.dtype,
            )
        return ChainState(x, self.target.log_density(x, beta) - self.module.log_prob(x))

    def _propose(self, n: int, beta: float) -> ChainState:
        x, log_prob = self.module.sample(n, self.generators["proposal"])
        return ChainState(x, self.target.log_density(x, beta) - log_prob)

    @torch.no_grad()
    def _silent_steps(self, state: ChainState, n_steps: int, beta: float) -> ChainState:
        """Move the chains by steps that nobody measures; all proposals are drawn in one pass."""
        if n_steps == 0:
            return state
        batch = self.settings.batch
        proposals = self._propose(n_steps * batch, beta)
        for fields, log_weight in zip(
            proposals.fields.split(batch), proposals.log_weight.split(batch), strict=True
        ):
            proposal = ChainState(fields, log_weight)
            state, _ = metropolis_step(state, proposal, self.generators["chain"])
        return state

    def _measured_step(
        self, state: ChainState, beta: float
    ) -> tuple[ChainState, dict[str, Tensor]]:
        """Return the chains after one step and its averages, differentiable where weighted."""
        settings = self.settings
        with torch.set_grad_enabled(settings.omega > 0 or settings.epsilon > 0):
            proposal = self._propose(settings.batch, beta)
        present = state.log_weight
        if settings.epsilon > 0:
            present = self.target.log_density(state.fields, beta) - self.module.log_prob(
                state.fields
            )
        log_a = log_acceptance(present, proposal.log_weight)
        detached = ChainState(proposal.fields.detach(), proposal.log_weight.detach())
        moved, accepted = metropolis_step(state, detached, self.generators["chain"])
        return moved, {
            "variational": -proposal.log_weight.mean(),
            "log_acceptance": log_a.mean(),
            "acceptance": accepted.to(log_a.dtype).mean(),
            "observable": self.target.observable(moved.fields).mean(),
        }

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, Tensor]:
        """Return the quality of the present weights, from fresh samples."""
        n = self.settings.evaluation_batch
        x, log_prob = self.module.sample(n, self.generators["eval"])
        log_weight = self.target.log_density(x) - log_prob
        return {
            "variational": -log_weight.mean(),
            "variational_error": log_weight.std() / n**0.5,
            "effective_sample_fraction": effective_sample_fraction(log_weight),
            "observable": self.target.observable(x).mean(),
            "positive_fraction": (self.target.order_parameter(x) > 0).to(x.dtype).mean(),
        }

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


def effective_sample_fraction(log_weight: Tensor) -> Tensor:
    """Return Kish's effective sample size per sample, (sum w)^2 / (n sum w^2)."""
    total = 2.0 * torch.logsumexp(log_weight, 0) - torch.logsumexp(2.0 * log_weight, 0)
    return torch.exp(total) / len(log_weight)
