"""RealNVP on a whole lattice: checkerboard masks and small convolutional nets.

Conventions: fields are (batch, *lattice). The sites of one colour of the checkerboard stay as they
are and condition the others; the colours take turns. *Generate* maps latents to fields, *infer* is
its inverse; each returns the log-determinant of its own Jacobian.

Source: Dinh, Sohl-Dickstein, Bengio, arXiv:1605.08803, sec. 3.4; start of the weights as in
`strata.neural_rg.couplings`. On a periodic lattice the convolutions wrap around it.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from strata.neural_rg.couplings import INITIAL_STD

Fields = Float[Tensor, "batch *lattice"]
PerSample = Float[Tensor, " batch"]
Boundary = Literal["periodic", "open"]


class CheckerboardNetwork(nn.Module):
    """Coupling layers that turn by turn transform one colour of the lattice's checkerboard.

    x <- x exp(s) + t on the sites that change, with s = bound * tanh(S(kept sites)) and
    t = T(kept sites); S and T are convolutions of 3, 1 and 3 sites with ELU units between them.

    Args:
        shape: shape of the lattice, one or two axes.
        boundary: whether convolutions wrap around ("periodic") or see zeros outside ("open").
        n_layers: coupling layers.
        hidden_scale, hidden_shift: channels of the nets S and T.
        generator: source of the initial weights (CPU).
    """

    colours: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        boundary: Boundary,
        n_layers: int,
        hidden_scale: int,
        hidden_shift: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        coordinates = torch.meshgrid(*(torch.arange(n) for n in self.shape), indexing="ij")
        even = torch.stack(coordinates).sum(0) % 2 == 0
        self.register_buffer("colours", torch.stack([even, ~even]), persistent=False)

        def net(hidden: int) -> nn.Sequential:
            return _convolutions(len(self.shape), boundary, hidden, generator)

        self.scale_nets = nn.ModuleList(net(hidden_scale) for _ in range(n_layers))
        self.shift_nets = nn.ModuleList(net(hidden_shift) for _ in range(n_layers))
        self.scale_bounds = nn.Parameter(torch.zeros(n_layers, *self.shape))

    def generate(self, z: Fields) -> tuple[Fields, PerSample]:
        """Return the fields and the log-determinant of z -> x."""
        log_det = z.new_zeros(len(z))
        for layer in range(len(self.scale_bounds)):
            scale, shift, changed = self._scale_and_shift(layer, z)
            z = torch.where(changed, torch.addcmul(shift, z, torch.exp(scale)), z)
            log_det = log_det + scale.flatten(1).sum(1)
        return z, log_det

    def infer(self, x: Fields) -> tuple[Fields, PerSample]:
        """Return the latents and the log-determinant of x -> z."""
        log_det = x.new_zeros(len(x))
        for layer in reversed(range(len(self.scale_bounds))):
            scale, shift, changed = self._scale_and_shift(layer, x)
            x = torch.where(changed, (x - shift) * torch.exp(-scale), x)
            log_det = log_det - scale.flatten(1).sum(1)
        return x, log_det

    def _scale_and_shift(self, layer: int, fields: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return s (zero where nothing changes), t, and which sites change."""
        changed = self.colours[layer % 2]
        kept = fields.masked_fill(changed, 0.0).unsqueeze(1)  # (batch, channel, *lattice)
        scale = self.scale_bounds[layer] * torch.tanh(self.scale_nets[layer](kept)[:, 0])
        return scale * changed, self.shift_nets[layer](kept)[:, 0], changed


def _convolutions(
    dimension: int, boundary: Boundary, hidden: int, generator: torch.Generator
) -> nn.Sequential:
    """Return a net of three convolutions from one channel to one channel."""
    kind = nn.Conv1d if dimension == 1 else nn.Conv2d
    padding_mode: Literal["circular", "zeros"] = "circular" if boundary == "periodic" else "zeros"

    def convolution(channels_in: int, channels_out: int, width: int) -> nn.Module:
        return nn.utils.skip_init(  # its own start would draw from the global generator
            kind,
            channels_in,
            channels_out,
            width,
            padding=width // 2,
            padding_mode=padding_mode,
        )

    net = nn.Sequential(
        convolution(1, hidden, 3),
        nn.ELU(),
        convolution(hidden, hidden, 1),
        nn.ELU(),
        convolution(hidden, 1, 3),
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.copy_(INITIAL_STD * torch.randn(parameter.shape, generator=generator))
    return net
