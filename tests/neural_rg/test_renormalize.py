"""The stage that computes the pictures: its datasets, their origin, and runs that it refuses."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from strata.artifacts import read_h5
from strata.checkpoints import save_tensors
from strata.neural_rg import flows
from strata.neural_rg.couplings import CouplingStack
from strata.neural_rg.flows import PatchNetwork, build_flow
from strata.neural_rg.renormalization import fields_by_scale, mean_gradients, sign_flips
from strata.neural_rg.renormalize import main
from strata.neural_rg.wiring import latent_scales, mera_layers
from strata.randomness import Generators
from strata.stages import run_stage

NewRun = Callable[..., Any]
KINDS = ("fields", "flipped", "difference", "gradient")
PICTURES = {"n_fields": 3, "n_averaged": 5}


@pytest.fixture
def modelled(new_run: NewRun) -> NewRun:
    """Return a function: changed blocks of settings -> a run's folder with a rough model."""

    def model(name: str = "run", **changes: Any) -> Any:
        run = new_run(name, **{"pictures": PICTURES, **changes})
        flow = build_flow(run.settings, torch.Generator().manual_seed(0))
        weights = {}
        for seed, which in enumerate(("best", "last")):
            rough = torch.Generator().manual_seed(seed)
            weights[which] = {
                key: 0.3 * torch.randn(tensor.shape, generator=rough)
                for key, tensor in flow.state_dict().items()
            }
        trained_with = run.settings.sections_of("train")
        save_tensors(run.path("model"), {**weights, "settings": trained_with})
        return run

    return model


def output(run: Any) -> Path:
    return run.folder / "renormalization.h5"


def command(run: Any, **elsewhere: Path) -> list[str]:
    paths = {
        "settings": run.path("settings"),
        "model": run.path("model"),
        "renormalization": output(run),
        **elsewhere,
    }
    return [*(text for name, path in paths.items() for text in (f"--{name}", str(path)))]


def renormalized(run: Any) -> dict[str, np.ndarray]:
    main([*command(run), "--device", "cpu"])
    return read_h5(output(run))


def status(run: Any, **elsewhere: Path) -> int:
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, command(run, **elsewhere)))
    assert isinstance(left.value.code, int)
    return left.value.code


def network_of(run: Any, which: str = "best") -> PatchNetwork:
    flow = build_flow(run.settings, torch.Generator().manual_seed(0))
    flow.load_state_dict(torch.load(run.path("model"), weights_only=True)[which])
    return flow.flow.network if run.settings.flow.symmetrize else flow.network


@pytest.mark.parametrize(("target", "lattice"), [
    ({"L": 4}, (4, 4)), ({"L": 8}, (8, 8)), ({"L": 8, "d": 1, "T": 2.0}, (8,)), ({"L": 2}, (2, 2)),
])  # fmt: skip
def test_datasets_have_shapes_units_and_an_origin(
    target: dict[str, Any], lattice: tuple[int, ...], modelled: NewRun
) -> None:
    run = modelled(target=target)
    arrays = renormalized(run)
    expected: dict[str, tuple[int, ...]] = {"latents": (3, *lattice), "latent_scales": lattice}
    for scale in range(lattice[0].bit_length() - 1):
        field = tuple(length // 2**scale for length in lattice)
        for kind in KINDS:
            n = 3 if kind == "fields" else int(np.prod(lattice))
            expected[f"{kind}/scale{scale}"] = (n, *field)
    assert {name: array.shape for name, array in arrays.items()} == expected
    np.testing.assert_array_equal(arrays["latent_scales"], latent_scales(lattice[0], len(lattice)))
    assert {array.dtype.name for name, array in arrays.items() if name != "latent_scales"} == {
        "float32"
    }
    with h5py.File(output(run)) as file:
        assert {file[name].attrs["unit"] for name in expected} == {"1"}
        assert file.attrs["settings"] == run.settings.sections_of("renormalize")
        assert file.attrs["device"] == "cpu"
        assert {"commit", "seed", "version_torch"} <= set(file.attrs)


@pytest.mark.parametrize("changes", [
    {}, {"flow": {"symmetrize": True}}, {"sampling": {"weights": "last"}},
    {"training": {"dtype": "float64"}}, {"seed": 7},
], ids=["plain", "symmetrized", "last", "float64", "seed"])  # fmt: skip
def test_arrays_are_the_fields_and_responses_of_the_stored_latents(
    changes: dict[str, Any], modelled: NewRun
) -> None:
    run = modelled(**changes)
    arrays = renormalized(run)
    network = network_of(run, run.settings.sampling.weights)
    z = torch.from_numpy(arrays["latents"])
    generator = Generators(run.settings.seed, torch.device("cpu")).on_cpu("gradients")
    dtype = getattr(torch, run.settings.training.dtype)
    averaged = torch.randn((5, 4, 4), generator=generator, dtype=dtype).float()
    flipped, differences = sign_flips(network, z[0])
    with torch.no_grad():
        expected = {
            "fields": fields_by_scale(network, z),
            "flipped": flipped,
            "difference": differences,
            "gradient": mean_gradients(network, averaged),
        }
    for kind, of_scales in expected.items():
        for scale, array in enumerate(of_scales):
            np.testing.assert_allclose(
                arrays[f"{kind}/scale{scale}"], array.numpy(), rtol=1e-4, atol=1e-4
            )


def test_difference_is_flipped_minus_the_first_field(modelled: NewRun) -> None:
    arrays = renormalized(modelled(target={"L": 8}))
    for scale in range(3):
        change = arrays[f"flipped/scale{scale}"] - arrays[f"fields/scale{scale}"][0]
        np.testing.assert_allclose(arrays[f"difference/scale{scale}"], change, rtol=0, atol=1e-4)
        unreached = arrays["latent_scales"].ravel() < scale
        assert not arrays[f"difference/scale{scale}"][unreached].any()
        assert not arrays[f"gradient/scale{scale}"][unreached].any()


def test_the_same_again_are_the_same_bytes(modelled: NewRun) -> None:
    run = modelled()
    renormalized(run)
    first = output(run).read_bytes()
    renormalized(run)
    assert output(run).read_bytes() == first
    other = renormalized(modelled("other", seed=1))
    assert not np.array_equal(other["latents"], read_h5(output(run))["latents"])


def test_settings_of_pictures_ask_for_no_training(modelled: NewRun, new_run: NewRun) -> None:
    run = modelled()
    more = new_run("more", pictures={"n_fields": 6, "n_averaged": 2})
    assert status(more, model=run.path("model")) == 0
    assert read_h5(output(more))["latents"].shape == (6, 4, 4)


@pytest.mark.parametrize(
    "changes", [{"seed": 5}, {"training": {"lr": 1e-4}}, {"target": {"T": 2.0}}]
)
def test_a_model_of_other_settings_is_refused(
    changes: dict[str, Any],
    modelled: NewRun,
    new_run: NewRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = modelled()
    other = new_run("other", pictures=PICTURES, **changes)
    assert status(other, model=run.path("model")) == 2
    complaint = capsys.readouterr().err
    assert f"{run.path('model')} was trained with other settings than" in complaint
    assert_one_sentence_and_no_output(complaint, other)


def test_a_flow_without_scales_is_refused(
    modelled: NewRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one_scale(target: Any, flow: Any, generator: torch.Generator) -> PatchNetwork:
        layers = mera_layers(target.L, 2, 1)[:2]
        return PatchNetwork((4, 4), layers, [CouplingStack(4, 2, 3, 3, generator) for _ in layers])

    monkeypatch.setitem(flows.NETWORKS, "mera", one_scale)
    run = modelled()
    assert status(run) == 2
    complaint = capsys.readouterr().err
    assert f"{run.path('settings')}: the flow mera has no scales to picture" in complaint
    assert_one_sentence_and_no_output(complaint, run)


@pytest.mark.parametrize("missing", ["settings", "model"])
def test_a_missing_input_is_named(
    missing: str, modelled: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = modelled()
    run.path(missing).unlink()
    assert status(run) == 2
    complaint = capsys.readouterr().err
    assert str(run.path(missing)) in complaint
    assert_one_sentence_and_no_output(complaint, run)


def test_a_damaged_model_is_named(modelled: NewRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = modelled()
    whole = run.path("model").read_bytes()
    run.path("model").write_bytes(whole[: len(whole) // 2])
    assert status(run) == 2
    complaint = capsys.readouterr().err
    assert f"{run.path('model')} is damaged" in complaint
    assert_one_sentence_and_no_output(complaint, run)


def assert_one_sentence_and_no_output(complaint: str, run: Any) -> None:
    assert complaint.startswith("strata: ")
    assert complaint.count("\n") == 1
    assert not output(run).exists()
