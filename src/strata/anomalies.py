"""What goes wrong with numbers: losses and gradients that are not finite, gradients that jump.

Conventions: norms are 2-norms. What is noticed at a step stays on the device until it is asked for,
so that no step waits for it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

SPIKE = 10.0
MOST_NAMED = 3


def gradient_norms(
    parameters: Sequence[nn.Parameter], device: torch.device
) -> tuple[Float[Tensor, " parameter"], Float[Tensor, ""]]:
    """Return the norm of every parameter's gradient (0 for one without) and of all together.

    The latter is `nn.utils.get_total_norm` to the last bit where all are of one number format.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(len(parameters), device=device), torch.zeros((), device=device)
    norms = [norm.to(device) for norm in torch._foreach_norm(gradients)]
    total = torch.linalg.vector_norm(torch.stack(norms))
    if len(norms) < len(parameters):
        rest = iter(norms)
        none = torch.zeros_like(total)
        norms = [none if p.grad is None else next(rest) for p in parameters]
    return torch.stack(norms), total


class Watch:
    """Notices the first step whose loss or gradient is not finite, and where it was."""

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = names
        self.device = device
        self.reset()

    def reset(self) -> None:
        """Forget everything: all is well again."""
        # 0 as long as all is finite, then NaN
        self._health = torch.zeros((), device=self.device)
        self._step = torch.zeros((), dtype=torch.int64, device=self.device)
        self._seen = torch.zeros(1 + len(self.names), device=self.device)

    def note(
        self,
        step: int,
        loss: Float[Tensor, ""],
        norms: Float[Tensor, " parameter"],
        total: Float[Tensor, ""],
    ) -> None:
        """Take note of a step: its loss, its gradients' norms, and the norm of all together."""
        good = torch.isfinite(self._health)
        self._step = torch.where(good, step, self._step)
        self._seen = torch.where(good, torch.cat((loss.reshape(1), norms)), self._seen)
        self._health = self._health + 0.0 * (loss + total)

    def is_finite(self) -> bool:
        """Whether everything noted was finite; waits for the device."""
        return bool(torch.isfinite(self._health))

    def first(self) -> str:
        """Say what was the first that was not finite, and at which step."""
        is_bad = (~torch.isfinite(self._seen)).tolist()
        bad = [name for name, flag in zip(self.names, is_bad[1:], strict=True) if flag]
        named = ", ".join(bad[:MOST_NAMED])
        if len(bad) > MOST_NAMED:
            named += f" and {len(bad) - MOST_NAMED} more"
        what = "the norm of all gradients together; each alone was finite"
        if is_bad[0]:
            what = "the loss"
        elif bad:
            what = f"the gradient of {named}; the loss was finite"
        return f"first, at step {int(self._step)}, {what}"


def spikes(
    steps: Int[np.ndarray, " row"], norms: Float[np.ndarray, " row"], n_new: int
) -> str | None:
    """Say which of the last `n_new` gradient norms exceed ten times the median of all, if any."""
    new, median = norms[-n_new:], np.median(norms)
    n_spikes = np.count_nonzero(new > SPIKE * median)
    if not n_spikes:
        return None
    largest = np.argmax(new)
    return (
        f"{n_spikes} of the last {len(new)} recorded gradient norms exceed {SPIKE:g} times the "
        f"run's median ({median:.3g}); the largest is {new[largest]:.3g}, at step "
        f"{steps[-n_new:][largest]}"
    )
