"""Checkpoints of the original NeuralRG programs, read into the flows of this family.

What is read: the files `epoch<n>` of learn_mera.py and learn_tebd.py, and the `_settings.h5` that
stands beside a MERA's. Neither says the temperature. A checkpoint alone says neither the size of
the lattice nor which program wrote it, and two wirings may have equally many blocks.

Conventions: blocks stand in the order of inference, as in `strata.neural_rg.wiring`; H is a hidden
width, n the number of sites of a patch. Reading executes nothing that a file holds. Deviations are
largest absolute values: of latents (dimensionless) and of log-determinants (nats).

Source: Li and Wang, arXiv:1802.02840, and the programs published with its first version.
"""

import copy
import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from strata.artifacts import read_h5
from strata.errors import UserError
from strata.neural_rg.config import RunSettings
from strata.neural_rg.couplings import CouplingStack
from strata.neural_rg.flows import GaussianFlow, PatchNetwork, Symmetrized, gaussian_part

PATCH_SHAPES = ((2, 2), (2,))
WEIGHTS = {  # name in the file -> name in a coupling stack, axes
    "fc1.weight": ("weight_in", "Hn"),
    "fc1.bias": ("bias_in", "H"),
    "fc2.weight": ("weight_out", "nH"),
    "fc2.bias": ("bias_out", "n"),
}
NETS = {  # letter in the file -> name in a coupling stack, weights
    "s": ("scale", {**WEIGHTS, "activation.scale": ("bound", "n")}),
    "t": ("shift", WEIGHTS),
}
PARAMETERS = ("Ls", "ds", "Nvarss", "Nlayerss", "Hss", "Hts", "Ndisentanglers")
N_BLOCKS = "number of blocks (MERA: (Ndisentangler + 1) log2 L; TEBD: Depth)"

N_ROUND_TRIPS = 64
ROWS_PER_PASS = 64
MAX_JACOBIAN_SITES = 1024  # seconds; four times as many sites would take minutes
DEVIATION_ALLOWED = 1e-6

Block = dict[str, Tensor]
"""Weights of one block by the names of a coupling stack's state dict, layers along the first axis.
"""


@dataclass(frozen=True)
class OriginalNetwork:
    """The blocks of a checkpoint, all of one size, and the file they come from with its SHA-256."""

    path: Path
    sha256: str
    blocks: list[Block]


@dataclass(frozen=True)
class Deviations:
    """How far a flow is from its own inverse, and its log-determinant from the Jacobian's."""

    round_trip: float
    log_determinant: float


# --- reading ------------------------------------------------------------------------------------


def read_original(path: Path) -> OriginalNetwork:
    """Return the blocks of a checkpoint of learn_mera.py or learn_tebd.py.

    Raises:
        UserError: the file is missing or damaged, would have to execute code, or is anything else
            than such a checkpoint, in any detail.
    """
    remedy = "name a file epoch<n> that learn_mera.py or learn_tebd.py saved"
    try:
        image = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; {remedy}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); {remedy}.") from error
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, on files that it then refuses
            content = torch.load(io.BytesIO(image), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can fail anywhere in unpickling
        code = re.search(r"GLOBAL ([\w.]*\w)", str(error))
        found = (
            f"holds more than tensors and plain values: it asks for {code[1]}, and nothing was run"
            if code
            else "is damaged (truncated?) or no file of torch.save"
        )
        raise UserError(f"{path} {found}; {remedy}.") from error
    try:
        return OriginalNetwork(path, hashlib.sha256(image).hexdigest(), _blocks(content))
    except ValueError as error:
        raise UserError(
            f"{path} is no checkpoint of learn_mera.py or learn_tebd.py: {error}; {remedy}."
        ) from error


def _blocks(content: Any) -> list[Block]:
    if not isinstance(content, Mapping) or "0th_bijector" not in content:
        raise ValueError(
            f"expected the keys 0th_bijector, 1th_bijector, ..., found {_kind(content)}"
        )
    names = [f"{index}th_bijector" for index in range(len(content))]
    _check_keys(content, names, "top level")
    blocks = [_block(_dictionary(content[name], name), name) for name in names]
    for name, block in zip(names, blocks, strict=True):
        for key, weights in block.items():
            _check(tuple(weights.shape), tuple(blocks[0][key].shape), f"{name}, shape of {key}")
    return blocks


def _kind(content: Any) -> str:
    """Say what a file holds in place of blocks."""
    if not isinstance(content, Mapping):
        return f"an object of type {type(content).__name__}"
    if "__0sLayer" in content:
        return "a single RealNVP, as learn_realnvp.py saves"
    names = ", ".join([*(_short(key) for key in list(content)[:3]), "..."])
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return f"a state dict, as later programs save ({names})"
    return f"a dictionary with other keys ({names})"


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:36]} ..."


def _check(found: Any, expected: Any, what: str) -> None:
    if type(found) is not type(expected) or found != expected:
        raise ValueError(f"{what}: expected {_short(expected)}, found {_short(found)}")


def _dictionary(content: Any, where: str) -> Mapping[Any, Any]:
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: expected a dictionary, found {_short(content)}")
    return content


def _check_keys(content: Mapping[Any, Any], expected: Collection[str], where: str) -> None:
    for missing in (key for key in expected if key not in content):
        raise ValueError(f"{where}: expected the key {missing}, found none of that name")
    for surplus in (key for key in content if key not in expected):
        raise ValueError(f"{where}: expected no key {_short(surplus)}, found one")


def _block(content: Mapping[Any, Any], where: str) -> Block:
    """Return the weights of one block that works as a coupling stack does."""
    n_layers = max(1, sum(str(key).endswith("sLayer") for key in content))
    layers = {net: [f"__{index}{net}Layer" for index in range(n_layers)] for net in NETS}
    _check_keys(content, [*layers["s"], *layers["t"], "mask", "mask_", "shapeList", "mode"], where)
    _check(content["mode"], 0, f"{where}.mode")
    patch = _patch_shape(content["shapeList"], f"{where}.shapeList")
    _check_masks(content, (n_layers, *patch), where)
    block: Block = {}
    for net, (name, roles) in NETS.items():
        states = {f"{where}.{key}": content[key] for key in layers[net]}
        stacked = _stacked(states, roles, math.prod(patch))
        block |= {f"{name}_{role}": weights for role, weights in stacked.items()}
    return block


def _patch_shape(value: Any, where: str) -> tuple[int, ...]:
    for shape in PATCH_SHAPES:
        if isinstance(value, list | tuple) and repr(list(value)) == repr(list(shape)):
            return shape
    raise ValueError(f"{where}: expected [2, 2] or [2], found {_short(value)}")


def _stacked(
    states: Mapping[str, Any], roles: Mapping[str, tuple[str, str]], n_sites: int
) -> dict[str, Tensor]:
    """Return the weights of one net of all layers; the first layer says how wide the net is."""
    for where, state in states.items():
        _check_keys(_dictionary(state, where), roles, where)
    first = next(iter(states.values()))["fc1.bias"]
    sizes = {"H": max(1, first.numel()) if isinstance(first, Tensor) else 1, "n": n_sites}
    return {
        role: torch.stack(
            [
                _weights(state[entry], tuple(sizes[axis] for axis in axes), f"{where}.{entry}")
                for where, state in states.items()
            ]
        )
        for entry, (role, axes) in roles.items()
    }


def _check_masks(content: Mapping[str, Any], shape: tuple[int, ...], where: str) -> None:
    """Refuse a block in which another part than the first half of a patch stays first."""
    kept = torch.zeros(shape, dtype=torch.int64)
    kept[:, 0] = 1
    # The complement of a mask of bytes is 1 - mask, or 255 - mask where `~` acts bit by bit.
    for key, masks in (("mask", [kept]), ("mask_", [1 - kept, 255 - kept])):
        found = _tensor(content[key], shape, f"{where}.{key}")
        if not any(bool((found == mask).all()) for mask in masks):
            half = "first" if key == "mask" else "second"
            raise ValueError(
                f"{where}.{key}: expected the {half} half of the patch in every coupling layer, "
                "found another mask"
            )


def _weights(value: Any, shape: tuple[int, ...], where: str) -> Tensor:
    tensor = _tensor(value, shape, where)
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{where}: expected float32 or float64, found {tensor.dtype}")
    if not tensor.isfinite().all():
        raise ValueError(f"{where}: expected finite weights, found NaN or infinity")
    return tensor.detach()


def _tensor(value: Any, shape: tuple[int, ...], where: str) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_cpu or value.layout != torch.strided:
        raise ValueError(f"{where}: expected a tensor, found {_short(value)}")
    _check(tuple(value.shape), shape, f"{where}, shape")
    return value


def read_original_parameters(path: Path) -> dict[str, int]:
    """Return the sizes of a MERA run, by their names in its `_settings.h5`.

    Raises:
        UserError: the file is missing or damaged, or lacks one of them.
    """
    arrays = read_h5(path, *(f"params/{name}" for name in PARAMETERS))
    parameters = {name: arrays[f"params/{name}"] for name in PARAMETERS}
    for name, value in parameters.items():
        if value.shape != () or value.dtype.kind not in "iu":
            raise UserError(
                f"{path}: params/{name}: expected one whole number, found {_short(value)}; name "
                "the file <run>_settings.h5 that learn_mera.py wrote."
            )
    return {name: int(value) for name, value in parameters.items()}


# --- into a flow --------------------------------------------------------------------------------


def weights_of(original: OriginalNetwork, flow: GaussianFlow | Symmetrized) -> dict[str, Tensor]:
    """Return the state dict of a flow that has the original's weights.

    Raises:
        UserError: the flow has other sizes; all of them are named.
    """
    network = _network(flow)
    _refuse_contradictions(
        original.path,
        _sizes(len(original.blocks), original.blocks[0]),
        _sizes(len(network.blocks), network.blocks[0].state_dict()),
    )
    prefix = "flow.network" if isinstance(flow, Symmetrized) else "network"
    return {
        f"{prefix}.blocks.{index}.{name}": weights
        for index, block in enumerate(original.blocks)
        for name, weights in block.items()
    }


def check_parameters(path: Path, settings: RunSettings, flow: GaussianFlow | Symmetrized) -> None:
    """Hold a MERA run's `_settings.h5` against the settings and the flow built from them.

    Raises:
        UserError: the file cannot be read, the flow is no MERA, or sizes differ; all are named.
    """
    if settings.flow.name != "mera":
        raise UserError(
            f"{path} would hold the sizes of a MERA, but the settings describe a flow "
            f"{settings.flow.name}; leave the option --parameters out."
        )
    network = _network(flow)
    length, dimension = network.shape[0], len(network.shape)
    sizes = _sizes(len(network.blocks), network.blocks[0].state_dict())
    n_scales = length.bit_length() - 1
    expected = {
        "Ls": length,
        "ds": dimension,
        "Nvarss": length**dimension,
        "Nlayerss": sizes["flow.n_layers"],
        "Hss": sizes["flow.hidden_scale"],
        "Hts": sizes["flow.hidden_shift"],
        "Ndisentanglers": sizes[N_BLOCKS] // n_scales - 1,
    }
    _refuse_contradictions(path, read_original_parameters(path), expected)


def _network(flow: GaussianFlow | Symmetrized) -> PatchNetwork:
    network = gaussian_part(flow).network
    if not isinstance(network, PatchNetwork):
        raise UserError(
            "Checkpoints of learn_mera.py and learn_tebd.py are read; the settings describe "
            "another network: set flow.name to mera or tebd."
        )
    return network


def _sizes(n_blocks: int, block: Mapping[str, Tensor]) -> dict[str, int]:
    n_layers, hidden_scale, n_sites = block["scale_weight_in"].shape
    return {
        N_BLOCKS: n_blocks,
        "sites of a patch (2^d)": n_sites,
        "flow.n_layers": n_layers,
        "flow.hidden_scale": hidden_scale,
        "flow.hidden_shift": block["shift_weight_in"].shape[1],
    }


def _refuse_contradictions(path: Path, there: Mapping[str, int], here: Mapping[str, int]) -> None:
    differences = [
        f"{name}: {here[name]} by the settings, {there[name]} in the file"
        for name in here
        if here[name] != there[name]
    ]
    if differences:
        raise UserError(
            f"{path} does not belong to these settings: {'; '.join(differences)}; name the files "
            "of one run."
        )


# --- verifying ----------------------------------------------------------------------------------


def verified(
    flow: GaussianFlow | Symmetrized, source: Path, generator: torch.Generator
) -> Deviations:
    """Return how well a flow keeps its two promises, computed in float64 on the CPU.

    Random latents go to fields and back; the log-determinants of both directions are held against
    autograd's Jacobian of the whole lattice at one of them. On more than `MAX_JACOBIAN_SITES` sites
    the Jacobian is that of every block at one random patch.

    Args:
        source: the file to blame.
        generator: of the latents; on the CPU.

    Raises:
        UserError: a deviation is above `DEVIATION_ALLOWED`, or is no number.
    """
    network = copy.deepcopy(_network(flow)).to("cpu", torch.float64).requires_grad_(False)
    z = torch.randn((N_ROUND_TRIPS, *network.shape), generator=generator, dtype=torch.float64)
    x, log_det = network.generate(z)
    back, inverse_log_det = network.infer(x)
    if z[0].numel() <= MAX_JACOBIAN_SITES:
        exact = _log_det_of_jacobian(lambda v: network.generate(v)[0], z[0])
        errors = [log_det[0] - exact]
    else:
        errors = [_error_of_block(cast(CouplingStack, b), generator) for b in network.blocks]
    log_det_errors = torch.cat([log_det + inverse_log_det, torch.stack(errors)])
    found = Deviations(
        round_trip=(back - z).abs().max().item(),
        log_determinant=log_det_errors.abs().max().item(),
    )
    worst = torch.tensor([found.round_trip, found.log_determinant]).max()  # NaN if any is
    if not worst <= DEVIATION_ALLOWED:
        raise UserError(
            f"{source} gives a flow that is not invertible in numbers: latents come back to "
            f"{found.round_trip:.1e}, log-determinants are right to {found.log_determinant:.1e} "
            f"nats, and {DEVIATION_ALLOWED:g} is allowed; name another checkpoint."
        )
    return found


def _log_det_of_jacobian(
    transform: Callable[[Tensor], Tensor], z: Float[Tensor, "*lattice"]
) -> Float[Tensor, ""]:
    """Return ln |det dx/dz| at one z; `transform` maps (batch, *lattice) to itself."""
    rows = []
    for seeds in torch.eye(z.numel(), dtype=z.dtype).split(ROWS_PER_PASS):
        # One copy of z for each row of the Jacobian: samples of a batch know nothing of each other.
        copies = z.expand(len(seeds), *z.shape).clone().requires_grad_()
        with torch.enable_grad():
            x = transform(copies).flatten(1)
        rows.append(torch.autograd.grad(x, copies, seeds)[0].flatten(1))
    return torch.linalg.slogdet(torch.cat(rows)).logabsdet


def _error_of_block(block: CouplingStack, generator: torch.Generator) -> Float[Tensor, ""]:
    z = torch.randn(block.n_sites, generator=generator, dtype=torch.float64)
    exact = _log_det_of_jacobian(lambda v: block.generate(v.t())[0].t(), z)
    return block.generate(z[:, None])[1][0] - exact
