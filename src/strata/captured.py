"""Steps as CUDA graphs: what is launched at every step is launched at once.

`CapturedLoss` is a loss and its gradient, `CapturedUpdate` a whole step with its optimizer.

Conventions: shapes, devices and the storage of all tensors must stay as they were; what varies from
step to step is copied or drawn into tensors that the graph reads, before each call. The function
must not make the host wait for the device. Results equal those of calling the function, since the
same kernels run.

Source: CUDA graphs as torch exposes them, `torch.cuda.CUDAGraph`.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

Update = Callable[[], Mapping[str, Tensor]]
LossFunction = Callable[..., tuple[Tensor, Mapping[str, Tensor]]]
WARM_UP_CALLS = 3


class CapturedLoss:
    """A function of tensors that returns a loss and metrics, captured with its gradient.

    Args:
        function: what is captured; called with `inputs`, it returns a scalar loss with a graph, and
            detached metrics.
        parameters: what the gradient is with respect to.
        inputs: tensors on a CUDA device that the function reads; they belong to the captured loss
            from now on.
    """

    def __init__(
        self, function: LossFunction, parameters: Sequence[nn.Parameter], inputs: Sequence[Tensor]
    ) -> None:
        self.inputs = list(inputs)
        self._parameters = list(parameters)
        self._function = function  # what it refers to is read at every replay
        aside = torch.cuda.Stream(self.inputs[0].device)
        aside.wait_stream(torch.cuda.current_stream(self.inputs[0].device))
        with torch.cuda.stream(aside):  # libraries set themselves up outside of the graph
            for _ in range(WARM_UP_CALLS):
                loss, _ = function(*self.inputs)
                torch.autograd.grad(loss, self._parameters)
        torch.cuda.current_stream(self.inputs[0].device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            loss, self._metrics = function(*self.inputs)
            self._gradients = torch.autograd.grad(loss, self._parameters)
            self._loss = loss.detach()

    def __call__(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and the metrics for what `inputs` hold now."""
        self._graph.replay()
        metrics = {name: metric.clone() for name, metric in self._metrics.items()}
        loss: Tensor = _Known.apply(self._loss, self._gradients, *self._parameters)
        return loss, metrics


class CapturedUpdate:
    """A step that changes tensors in place, captured whole.

    Args:
        update: what is captured; it returns metrics, detached tensors.
        state: all tensors that the step changes. Those that there are before the first step go
            back to what they were after warming up; those that the first step makes (moments of an
            optimizer) begin at zero.
        device: the CUDA device.
    """

    def __init__(
        self, update: Update, state: Callable[[], Sequence[Tensor]], device: torch.device
    ) -> None:
        self._read = (update, state)  # what they refer to is read at every replay
        before = [(tensor, tensor.detach().clone()) for tensor in state()]
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP_CALLS):
                update()
        torch.cuda.current_stream(device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._metrics = update()
        with torch.no_grad():
            for tensor in state():
                tensor.zero_()
            for tensor, value in before:
                tensor.copy_(value)

    def __call__(self) -> Mapping[str, Tensor]:
        """Take a step; return its metrics, which the next step overwrites."""
        self._graph.replay()
        return self._metrics


class _Known(torch.autograd.Function):
    """A loss whose gradient is known already."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, loss: Tensor, gradients: Sequence[Tensor], *parameters: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*gradients)
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        return (None, None, *torch._foreach_mul(list(ctx.saved_tensors), gradient))
