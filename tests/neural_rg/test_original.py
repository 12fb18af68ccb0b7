"""Checkpoints of the original programs: the same distribution here as there, or one sentence.

The oracle works on a checkpoint's dictionary directly, in the original's way: arrays (batch, L, L)
that are rolled, cut into patches, masked, and put together again (arXiv:1802.02840).
"""

import copy
import hashlib
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from torch import Tensor

from strata.artifacts import read_h5
from strata.errors import UserError
from strata.neural_rg import import_original, original
from strata.neural_rg.config import RunSettings
from strata.neural_rg.couplings import CouplingStack
from strata.neural_rg.flow_settings import FlowSettings, MeraSettings, TebdSettings
from strata.neural_rg.flows import GaussianFlow, Symmetrized, build_flow
from strata.neural_rg.original import (
    PARAMETERS,
    check_parameters,
    read_original,
    read_original_parameters,
    verified,
    weights_of,
)
from strata.neural_rg.target_settings import IsingSettings
from strata.neural_rg.targets import build_target
from strata.stages import run_stage

NewRun = Callable[..., Any]
Content = dict[Any, Any]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


# --- the original's files -----------------------------------------------------------------------


def checkpoint(
    n_blocks: int = 4,
    d: int = 2,
    n_layers: int = 2,
    hidden_scale: int = 8,
    hidden_shift: int = 8,
    std: float = 0.3,
) -> Content:
    """A random checkpoint in the original's layout; by default of the family's miniature run."""
    source, sites, shape = generator(n_blocks), 2**d, [2] * d

    def draw(*size: int) -> Tensor:
        return std * torch.randn(size, generator=source)

    def net(width: int) -> dict[str, Tensor]:
        return {
            "fc1.weight": draw(width, sites),
            "fc1.bias": draw(width),
            "fc2.weight": draw(sites, width),
            "fc2.bias": draw(sites),
        }

    first_row = torch.zeros(n_layers, *shape, dtype=torch.uint8)
    first_row[:, 0] = 1
    content: Content = {}
    for index in range(n_blocks):
        block: Content = {}
        for layer in range(n_layers):
            block[f"__{layer}sLayer"] = {**net(hidden_scale), "activation.scale": draw(sites)}
            block[f"__{layer}tLayer"] = net(hidden_shift)
        described = {"mask": first_row, "mask_": 1 - first_row, "shapeList": shape, "mode": 0}
        content[f"{index}th_bijector"] = {**block, **described}
    return content


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def save_parameters(path: Path, **changes: Any) -> Path:
    """The `_settings.h5` of the miniature run."""
    values = {"Ls": 4, "ds": 2, "Nvarss": 16, "Nlayerss": 2, "Hss": 8, "Hts": 8}
    with h5py.File(path, "w") as file:
        group = file.create_group("params")
        for name, value in {**values, "Ndisentanglers": 1, **changes}.items():
            if value is not None:
                group.create_dataset(name, data=value)
    return path


# --- the original's flow ------------------------------------------------------------------------


def net_output(state: Mapping[str, Tensor], y: Tensor) -> Tensor:
    weights = {name: tensor.to(y.dtype) for name, tensor in state.items()}
    hidden = torch.nn.functional.elu(y @ weights["fc1.weight"].t() + weights["fc1.bias"])
    output = hidden @ weights["fc2.weight"].t() + weights["fc2.bias"]
    return weights["activation.scale"] * torch.tanh(output) if len(weights) == 5 else output


def through_block(block: Content, y: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """Patches (n, sites) to patches and their log-determinants."""
    log_det = y.new_zeros(len(y))
    n_layers = len(block["mask"])
    for layer in reversed(range(n_layers)) if inverse else range(n_layers):
        mask = block["mask"][layer].flatten().to(y.dtype)
        mask = 1 - mask if layer % 2 else mask
        s = (1 - mask) * net_output(block[f"__{layer}sLayer"], mask * y)
        t = (1 - mask) * net_output(block[f"__{layer}tLayer"], mask * y)
        moved = (y - t) * torch.exp(-s) if inverse else y * torch.exp(s) + t
        y = mask * y + (1 - mask) * moved
        log_det = log_det + (-s if inverse else s).sum(1)
    return y, log_det


def through_layer(
    block: Content, field: Tensor, shift: int, *, inverse: bool
) -> tuple[Tensor, Tensor]:
    """All patches of a field (batch, n) or (batch, n, n), shifted or not."""
    batch, n, *other = field.shape
    axes = tuple(range(1, field.ndim))
    rolled = field.roll((-shift,) * len(axes), axes)
    if other:
        cut = rolled.reshape(batch, n // 2, 2, n // 2, 2).transpose(2, 3)
        patches, log_det = through_block(block, cut.reshape(-1, 4), inverse=inverse)
        rolled = patches.reshape(cut.shape).transpose(2, 3).reshape(field.shape)
    else:
        patches, log_det = through_block(block, rolled.reshape(-1, 2), inverse=inverse)
        rolled = patches.reshape(field.shape)
    return rolled.roll((shift,) * len(axes), axes), log_det.reshape(batch, -1).sum(1)


def through_network(
    content: Content, field: Tensor, layers_per_scale: int, *, inverse: bool
) -> tuple[Tensor, Tensor]:
    """A MERA; a TEBD if there is one scale only."""
    field, log_det = field.clone(), field.new_zeros(len(field))
    order = range(len(content))
    for index in order if inverse else reversed(order):
        scale, layer = divmod(index, layers_per_scale)
        active = (slice(None), *[slice(None, None, 2**scale)] * (field.ndim - 1))
        field[active], change = through_layer(
            content[f"{index}th_bijector"], field[active], layer % 2, inverse=inverse
        )
        log_det = log_det + change
    return field, log_det


def log_probability(content: Content, x: Tensor, layers_per_scale: int) -> Tensor:
    z, log_det = through_network(content, x, layers_per_scale, inverse=True)
    return (-0.5 * z.square() - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1) + log_det


def assert_same_distribution(
    flow: GaussianFlow, content: Content, layers_per_scale: int, tolerance: float
) -> None:
    dtype = next(flow.parameters()).dtype
    z = normal(16, *flow.network.shape)
    x, log_det = through_network(content, z, layers_per_scale, inverse=False)
    assert (x - z).abs().max() > 0.5, "the flow under test should move its input"
    close = partial(torch.testing.assert_close, rtol=0, atol=tolerance)
    with torch.no_grad():
        ours, our_log_det = flow.network.generate(z.to(dtype))
        close(ours.double(), x)
        close(our_log_det.double(), log_det)
        elsewhere = 2 * normal(16, *flow.network.shape, seed=2)
        latents, _ = through_network(content, elsewhere, layers_per_scale, inverse=True)
        close(flow.network.infer(elsewhere.to(dtype))[0].double(), latents)
        log_p = log_probability(content, elsewhere, layers_per_scale)
        close(flow.log_prob(elsewhere.to(dtype)).double(), log_p)


MERAS = [(4, 2, 1), (4, 2, 2), (8, 2, 1), (8, 2, 2), (2, 2, 1), (8, 1, 1), (4, 1, 2)]
NUMBERS = [(torch.float64, 1e-10), (torch.float32, 5e-4)]


SIZES = {"n_layers": 4, "hidden_scale": 5, "hidden_shift": 7}


def built(length: int, d: int, flow: FlowSettings) -> GaussianFlow | Symmetrized:
    settings = RunSettings(target=IsingSettings(L=length, d=d, T=2.0), flow=flow)
    return build_flow(settings, generator())


def mera(
    length: int, d: int, n_disentanglers: int, *, symmetrize: bool = False
) -> GaussianFlow | Symmetrized:
    wiring = MeraSettings(n_disentanglers=n_disentanglers, symmetrize=symmetrize, **SIZES)
    return built(length, d, wiring)


def matching(flow: GaussianFlow) -> Content:
    return checkpoint(len(flow.network.blocks), len(flow.network.shape), 4, 5, 7)


@pytest.mark.parametrize(("length", "d", "n_disentanglers"), MERAS)
@pytest.mark.parametrize(("dtype", "tolerance"), NUMBERS)
def test_a_mera_is_the_same_distribution_here_as_there(
    length: int, d: int, n_disentanglers: int, dtype: torch.dtype, tolerance: float, tmp_path: Path
) -> None:
    flow = mera(length, d, n_disentanglers).to(dtype)
    assert isinstance(flow, GaussianFlow)
    content = matching(flow)
    assert len(content) == (n_disentanglers + 1) * int(math.log2(length))
    flow.load_state_dict(weights_of(read_original(saved(tmp_path / "epoch0", content)), flow))
    assert_same_distribution(flow, content, n_disentanglers + 1, tolerance)


@pytest.mark.parametrize(("length", "d", "depth"), [(8, 2, 6), (4, 2, 8), (6, 2, 2), (8, 1, 4)])
@pytest.mark.parametrize(("dtype", "tolerance"), NUMBERS)
def test_a_tebd_is_the_same_distribution_here_as_there(
    length: int, d: int, depth: int, dtype: torch.dtype, tolerance: float, tmp_path: Path
) -> None:
    flow = built(length, d, TebdSettings(depth=depth, **SIZES)).to(dtype)
    assert isinstance(flow, GaussianFlow)
    content = matching(flow)
    assert len(content) == depth
    flow.load_state_dict(weights_of(read_original(saved(tmp_path / "epoch0", content)), flow))
    assert_same_distribution(flow, content, depth, tolerance)


def test_weights_fit_a_symmetrized_flow(tmp_path: Path) -> None:
    flow = mera(4, 2, 1, symmetrize=True).double()
    assert isinstance(flow, Symmetrized)
    content = matching(flow.flow)
    flow.load_state_dict(weights_of(read_original(saved(tmp_path / "epoch0", content)), flow))
    x = normal(8, 4, 4)
    even = sum(log_probability(content, sign * x, 2).exp() for sign in (1, -1)) / 2
    torch.testing.assert_close(flow.log_prob(x).exp(), even, rtol=1e-10, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float32])
@pytest.mark.parametrize("complement", ["by arithmetic", "by bits"])
@pytest.mark.parametrize("new_format", [True, False])
def test_every_way_to_store_masks_is_read(
    dtype: torch.dtype, complement: str, new_format: bool, tmp_path: Path
) -> None:
    content = checkpoint(2)
    for block in content.values():
        bits = ~block["mask"] if complement == "by bits" else 1 - block["mask"]
        assert bits.unique().tolist() in ([254, 255], [0, 1])
        block["mask"], block["mask_"] = block["mask"].to(dtype), bits
        block["shapeList"] = torch.Size(block["shapeList"])
    path = saved(tmp_path / "epoch0", content, _use_new_zipfile_serialization=new_format)
    blocks = read_original(path).blocks
    assert len(blocks) == 2
    for block, there in zip(blocks, content.values(), strict=True):
        weights = there["__1sLayer"]["fc2.weight"]
        assert torch.equal(block["scale_weight_out"][1], weights)


# --- the stage ----------------------------------------------------------------------------------


def import_arguments(run: Any, path: Path, parameters: Path | None = None) -> list[str]:
    line = ["--settings", run.path("settings"), "--checkpoint", path, "--model", run.path("model")]
    line += ["--parameters", parameters] if parameters else []
    return [str(word) for word in line]


def refused(
    run: Any, path: Path, capsys: pytest.CaptureFixture[str], parameters: Path | None = None
) -> str:
    """Run the stage, which must leave with status 2, one sentence and no file; return it."""
    before = sorted(run.folder.iterdir())
    with pytest.raises(SystemExit) as left:
        run_stage(partial(import_original.main, import_arguments(run, path, parameters)))
    sentence = capsys.readouterr().err
    assert left.value.code == 2
    assert sorted(run.folder.iterdir()) == before
    assert not run.path("model").exists()
    assert sentence.startswith(f"strata: {parameters or path}")
    assert sentence.count("\n") == 1
    return sentence


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_imported_model_is_sampled_like_a_trained_one(
    dtype: str, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run, content = new_run(training={"dtype": dtype}), checkpoint()
    path = saved(run.folder / "epoch1990", content)
    parameters = save_parameters(run.folder / "some_settings.h5")
    import_original.main(import_arguments(run, path, parameters))
    assert "mera: 4 blocks, 1,248 parameters" in capsys.readouterr().out
    model = torch.load(run.path("model"), weights_only=True)
    assert (model["best_step"], model["last_step"], model["setbacks"]) == (1990, 1990, 0)
    assert model["settings"] == run.settings.sections_of("train")
    assert (model["seed"], model["device"], model["original"]) == (0, "cpu", "epoch1990")
    assert model["original_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert 0 < model["round_trip_deviation"] < 1e-12
    assert 0 < model["log_determinant_deviation"] < 1e-12
    for name, weights in model["best"].items():
        assert weights.dtype == getattr(torch, dtype)
        assert torch.equal(weights, model["last"][name])
    run.run("sample")
    samples = read_h5(run.path("samples"))
    fields = torch.from_numpy(samples["model/fields"]).double()
    target = build_target(run.settings.target, dtype=torch.float64, device=torch.device("cpu"))
    log_weight = target.log_density(fields) - log_probability(content, fields, 2)
    measured = torch.from_numpy(samples["model/log_weight"][-1, : len(fields)]).double()
    tolerance = 1e-9 if dtype == "float64" else 1e-3
    torch.testing.assert_close(measured, log_weight, rtol=0, atol=tolerance)


def test_an_imported_brick_wall_is_sampled_like_a_trained_one(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(
        flow={"name": "tebd", "depth": 4},
        training={"dtype": "float64"},
        original={"checkpoint": "runs/epoch490"},
    )
    content = checkpoint(4)
    import_original.main(import_arguments(run, saved(run.folder / "epoch490", content)))
    assert "tebd: 4 blocks, 1,248 parameters" in capsys.readouterr().out
    run.run("sample")
    samples = read_h5(run.path("samples"))
    fields = torch.from_numpy(samples["model/fields"])
    target = build_target(run.settings.target, dtype=torch.float64, device=torch.device("cpu"))
    log_weight = target.log_density(fields) - log_probability(content, fields, 4)
    measured = torch.from_numpy(samples["model/log_weight"][-1, : len(fields)])
    torch.testing.assert_close(measured, log_weight, rtol=0, atol=1e-9)


def test_another_network_takes_no_checkpoint(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(flow={"name": "realnvp"})
    path = saved(run.folder / "epoch10", checkpoint())
    with pytest.raises(SystemExit) as left:
        run_stage(partial(import_original.main, import_arguments(run, path)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert "set flow.name to mera or tebd" in complaint
    assert complaint.count("\n") == 1
    assert not run.path("model").exists()


@pytest.mark.parametrize(("name", "step"), [
    ("epoch0", 0), ("epoch4990", 4990), ("epoch", 0), ("epoch12.png", 0), ("my_epoch12", 0),
])  # fmt: skip
def test_the_step_is_that_of_the_name(name: str, step: int, tmp_path: Path) -> None:
    assert import_original.step_of(tmp_path / "epoch7" / name) == step


def test_two_imports_are_one_file(new_run: NewRun) -> None:
    runs = [new_run("first"), new_run("second")]
    for run in runs:
        import_original.main(import_arguments(run, saved(run.folder / "epoch10", checkpoint())))
    first, second = (run.path("model").read_bytes() for run in runs)
    assert first == second


# --- files that are refused ---------------------------------------------------------------------

OTHER_FILES: dict[str, tuple[Any, str]] = {
    "later program": (
        {"layerList.0.masks": torch.zeros(8), "layerList.0.sList.0.weight": torch.zeros(3)},
        "found a state dict, as later programs save ('layerList.0.masks',",
    ),
    "learn_realnvp": (
        checkpoint()["0th_bijector"], "found a single RealNVP, as learn_realnvp.py saves",
    ),
    "foreign dictionary": ({"best": {}, "step": 3}, "a dictionary with other keys ('best', 'step'"),
    "empty dictionary": ({}, "a dictionary with other keys (...)"),
    "tensor": (torch.zeros(3), "found an object of type Tensor"),
    "list": ([checkpoint()], "found an object of type list"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "found"), OTHER_FILES.values(), ids=list(OTHER_FILES))
def test_what_other_programs_save_is_named(
    content: Any, found: str, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()
    sentence = refused(run, saved(run.folder / "epoch10", content), capsys)
    assert "is no checkpoint of learn_mera.py or learn_tebd.py: expected the keys 0th_" in sentence
    assert found in sentence


@pytest.mark.parametrize("new_format", [True, False])
def test_a_truncated_file_is_named(
    new_format: bool, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()
    path = saved(run.folder / "epoch10", checkpoint(), _use_new_zipfile_serialization=new_format)
    whole = path.read_bytes()
    for share in (0.0, 0.01, 0.1, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        assert "is damaged (truncated?) or no file of torch.save" in refused(run, path, capsys)


@pytest.mark.parametrize("bytes_", [
    b"epoch: 10 loss: -147.0\n", b"\x89PNG\r\n\x1a\n" + bytes(60), b"\x89HDF\r\n\x1a\n" + bytes(60),
    b"\x80\x04}\x94.", b"PK\x03\x04" + bytes(60),
])  # fmt: skip
def test_other_kinds_of_files_are_named(
    bytes_: bytes, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()
    path = run.folder / "epoch10"
    path.write_bytes(bytes_)
    refused(run, path, capsys)


def test_missing_files_and_folders_are_named(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()
    assert "does not exist" in refused(run, run.folder / "epoch10", capsys)
    (run.folder / "epoch10").mkdir()
    assert "cannot be read (Is a directory)" in refused(run, run.folder / "epoch10", capsys)


class Payload:
    """What leaves a folder behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_file_is_not_executed(
    new_format: bool, new_run: NewRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, content, trace = new_run(), checkpoint(), tmp_path / "trace"
    content["3th_bijector"]["mode"] = Payload(trace)
    path = saved(run.folder / "epoch10", content, _use_new_zipfile_serialization=new_format)
    torch.load(path, weights_only=False)
    assert trace.exists(), "the file under test should execute code where that is allowed"
    trace.rmdir()
    sentence = refused(run, path, capsys)
    assert not trace.exists()
    assert "it asks for posix.mkdir, and nothing was run" in sentence


def places(content: Content, *above: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to everything in a tree of dictionaries."""
    for key, value in content.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from places(value, *above, key)


PLACES = list(places(checkpoint(1)))
WEIGHTS = [place for place in PLACES if len(place) == 3]
JUNK: dict[str, Any] = {
    "none": None,
    "text": "two\nlines",
    "number": 1,
    "list": [2, [2]],
    "dictionary": {"fc1.weight": 1},
    "scalar": torch.tensor(0.5),
    "vector": torch.zeros(3),
    "whole numbers": torch.ones(8, 4, dtype=torch.int64),
    "sparse": torch.eye(4).to_sparse(),
    "nowhere": torch.empty(4, device="meta"),
}


def changed(place: tuple[Any, ...], change: Callable[[Content, Any], Any]) -> Content:
    """A checkpoint after `change(dictionary, key)` at one place."""
    content = inner = checkpoint(2)
    for key in place[:-1]:
        inner = inner[key]
    change(inner, place[-1])
    return content


def assert_refused(path: Path, content: Any, words: str = "") -> None:
    with pytest.raises(UserError) as error:
        read_original(saved(path, content))
    assert str(error.value).startswith(f"{path} is no checkpoint of learn_mera.py or learn_tebd.py")
    assert "\n" not in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize("junk", JUNK.values(), ids=list(JUNK))
def test_junk_anywhere_in_the_file_is_named(junk: Any, tmp_path: Path) -> None:
    assert len(PLACES) == 1 + 2 * 2 + 2 * (5 + 4) + 4
    for place in PLACES:
        content = changed(place, lambda inner, key: inner.update({key: junk}))
        assert_refused(tmp_path / "epoch0", content, place[0])


def test_a_key_too_few_or_too_many_is_named(tmp_path: Path) -> None:
    path = tmp_path / "epoch0"
    assert len(read_original(saved(path, checkpoint(2))).blocks) == 2
    for place in PLACES:
        assert_refused(path, changed(place, lambda inner, key: inner.pop(key)))
        assert_refused(path, changed(place, lambda inner, key: inner.update({"extra": inner[key]})))
    gap = checkpoint(4)
    gap.pop("2th_bijector")
    assert_refused(path, gap, "expected the key 2th_bijector")


def test_weights_of_another_shape_or_without_a_value_are_named(tmp_path: Path) -> None:
    def longer(inner: Content, key: str) -> None:
        inner[key] = torch.cat([inner[key], inner[key]])

    def not_a_number(inner: Content, key: str) -> None:
        inner[key].view(-1)[-1] = math.nan

    for place in WEIGHTS:
        assert_refused(tmp_path / "epoch0", changed(place, longer), "expected (")
        assert_refused(tmp_path / "epoch0", changed(place, not_a_number), "found NaN or infinity")


def test_blocks_of_different_sizes_are_named(tmp_path: Path) -> None:
    for other in (checkpoint(2, hidden_scale=9), checkpoint(2, n_layers=4), checkpoint(2, d=1)):
        mixed = {**checkpoint(2), "1th_bijector": other["1th_bijector"]}
        assert_refused(tmp_path / "epoch0", mixed, "1th_bijector, shape of scale_weight_in")


OTHER_MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "second row": lambda mask: mask.flip(1),
    "first column": lambda mask: mask.transpose(1, 2),
    "alternating": lambda mask: torch.stack([mask[0], mask[0].flip(0)]),
    "everything": torch.ones_like,
    "half as much": lambda mask: 0.5 * mask,
}


@pytest.mark.parametrize("spoilt", OTHER_MASKS.values(), ids=list(OTHER_MASKS))
@pytest.mark.parametrize("key", ["mask", "mask_"])
def test_another_mask_is_named(
    spoilt: Callable[[Tensor], Tensor], key: str, tmp_path: Path
) -> None:
    content = checkpoint(2)
    content["1th_bijector"][key] = spoilt(content["1th_bijector"][key])
    assert_refused(tmp_path / "epoch0", content, f"1th_bijector.{key}: expected the")


def test_changed_bytes_are_survived_or_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "epoch0", checkpoint(1))
    whole, draw, refusals = path.read_bytes(), random.Random(0), 0
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(3):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
        try:
            read_original(path)
        except UserError:
            refusals += 1
    assert refusals > 50


# --- files of another run -----------------------------------------------------------------------

OTHER_RUNS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "more blocks": ({"n_blocks": 6}, ["TEBD: Depth): 4 by the settings, 6 in the file"]),
    "fewer blocks": ({"n_blocks": 2}, ["TEBD: Depth): 4 by the settings, 2 in the file"]),
    "layers": ({"n_layers": 4}, ["flow.n_layers: 2 by the settings, 4 in the file"]),
    "scale": ({"hidden_scale": 10}, ["flow.hidden_scale: 8 by the settings, 10 in the file"]),
    "shift": ({"hidden_shift": 7}, ["flow.hidden_shift: 8 by the settings, 7 in the file"]),
    "dimension": ({"d": 1}, ["sites of a patch (2^d): 4 by the settings, 2 in the file"]),
    "everything": (
        {"n_blocks": 8, "n_layers": 6, "hidden_scale": 3, "hidden_shift": 5, "d": 1},
        ["number of blocks", "patch", "flow.n_layers", "flow.hidden_scale", "flow.hidden_shift"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sizes", "words"), OTHER_RUNS.values(), ids=list(OTHER_RUNS))
def test_a_checkpoint_of_other_sizes_is_named(
    sizes: dict[str, Any], words: list[str], new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()
    sentence = refused(run, saved(run.folder / "epoch10", checkpoint(**sizes)), capsys)
    assert sentence.count("by the settings") == len(words)
    assert all(word in sentence for word in words)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_another_run_are_named(
    name: str, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()
    path = saved(run.folder / "epoch10", checkpoint())
    right = read_original_parameters(save_parameters(run.folder / "x_settings.h5"))
    parameters = save_parameters(run.folder / "x_settings.h5", **{name: 32})
    sentence = refused(run, path, capsys, parameters)
    assert f"{name}: {right[name]} by the settings, 32 in the file" in sentence
    assert sentence.count("by the settings") == 1


def test_parameters_count_the_disentanglers(new_run: NewRun) -> None:
    run = new_run(flow={"n_disentanglers": 3}, target={"L": 8})
    flow = build_flow(run.settings, generator())
    path = run.folder / "x_settings.h5"
    right = {"Ls": 8, "Nvarss": 64, "Ndisentanglers": 3}
    check_parameters(save_parameters(path, **right), run.settings, flow)
    with pytest.raises(UserError, match="Ndisentanglers: 3 by the settings, 1 in the file"):
        check_parameters(
            save_parameters(path, **{**right, "Ndisentanglers": 1}), run.settings, flow
        )


@pytest.mark.parametrize(("changes", "words"), [
    ({"Hss": None}, "holds no params/Hss"),
    ({"Hss": 8.0}, "params/Hss: expected one whole number"),
    ({"Hss": [8, 8]}, "params/Hss: expected one whole number"),
    ({"Hss": "8"}, "params/Hss: expected one whole number"),
])  # fmt: skip
def test_bad_parameters_are_named(
    changes: dict[str, Any], words: str, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()
    path = saved(run.folder / "epoch10", checkpoint())
    parameters = save_parameters(run.folder / "x_settings.h5", **changes)
    assert words in refused(run, path, capsys, parameters)


def test_parameters_that_are_missing_or_no_hdf5_are_named(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()
    path = saved(run.folder / "epoch10", checkpoint())
    assert "does not exist" in refused(run, path, capsys, run.folder / "x_settings.h5")
    assert "not an HDF5 file" in refused(run, path, capsys, path)


def test_parameters_are_for_a_mera_only(new_run: NewRun) -> None:
    run = new_run(flow={"name": "tebd", "depth": 4})
    flow = build_flow(run.settings, generator())
    path = save_parameters(run.folder / "x_settings.h5")
    with pytest.raises(UserError, match=r"x_settings\.h5 would hold the sizes of a MERA.* tebd;"):
        check_parameters(path, run.settings, flow)


# --- flows that are verified --------------------------------------------------------------------


@pytest.fixture
def flow(tmp_path: Path) -> GaussianFlow:
    flow = mera(4, 2, 1)
    assert isinstance(flow, GaussianFlow)
    path = saved(tmp_path / "epoch0", matching(flow))
    flow.load_state_dict(weights_of(read_original(path), flow))
    return flow


@pytest.fixture(params=["whole lattice", "block by block"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "block by block":
        monkeypatch.setattr(original, "MAX_JACOBIAN_SITES", 15)


@pytest.mark.usefixtures("_way")
def test_a_flow_that_keeps_its_promises_is_left_as_it_is(flow: GaussianFlow) -> None:
    before = copy.deepcopy(flow.state_dict())
    with torch.no_grad():
        found = verified(flow, Path("epoch0"), generator())
    assert 0 < found.round_trip < 1e-12
    assert 0 < found.log_determinant < 1e-12
    for name, weights in flow.state_dict().items():
        assert torch.equal(weights, before[name])
        assert weights.dtype == torch.float32
    assert all(parameter.requires_grad for parameter in flow.parameters())


Outcome = tuple[Tensor, Tensor]
BREAKS: dict[str, Callable[[Outcome, float], Outcome]] = {  # sign: 1 generates, -1 infers
    "fields": lambda outcome, sign: (outcome[0] + 1e-4 * (sign > 0), outcome[1]),
    "one log-determinant": lambda outcome, sign: (outcome[0], outcome[1] + 1e-4 * (sign < 0)),
    "both log-determinants": lambda outcome, sign: (outcome[0], outcome[1] + 1e-4 * sign),
    "no number": lambda outcome, sign: (outcome[0], outcome[1] * math.nan),
}


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("kind", BREAKS)
def test_a_flow_that_breaks_a_promise_is_named(
    kind: str, flow: GaussianFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, sign in (("generate", 1.0), ("infer", -1.0)):
        right = getattr(CouplingStack, name)
        monkeypatch.setattr(CouplingStack, name, lambda *a, f=right, s=sign: BREAKS[kind](f(*a), s))
    with pytest.raises(UserError, match="epoch0 gives a flow that is not invertible in numbers"):
        verified(flow, Path("epoch0"), generator())


def test_weights_too_large_for_numbers_are_named(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()
    path = saved(run.folder / "epoch10", checkpoint(std=300.0))
    assert "is not invertible in numbers" in refused(run, path, capsys)
