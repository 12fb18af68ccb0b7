"""Bytes that were lost or changed are noticed, in any file, by every stage that reads it."""

import importlib
import json
import pickle
import random
import re
import shlex
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from strata.artifacts import read_attributes, read_h5, write_h5
from strata.checkpoints import load_tensors, save_tensors
from strata.errors import UserError
from strata.history import History, read_history

ARRAYS = {"a/noise": np.random.default_rng(0).normal(size=(40, 5)), "b": np.arange(300)}
STATE = {
    "weights": torch.arange(300.0),
    "generator": torch.Generator().get_state(),
    "history": {"eval": {"step": torch.arange(9)}},
    "best_value": 0.25,
    "name": "adam",
}


def flipped(content: bytes, draw: random.Random, n_bits: int = 1) -> bytes:
    changed = bytearray(content)
    for bit in draw.sample(range(8 * len(content)), n_bits):
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def answer(read: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """Return the sentence that refuses a file, or what was read; any other error is a crash."""
    try:
        return "", read(*arguments)
    except UserError as refusal:
        return str(refusal), None


# --- HDF5 -----------------------------------------------------------------------------------------


@pytest.fixture
def array_file(tmp_path: Path) -> Path:
    path = tmp_path / "arrays.h5"
    write_h5(path, ARRAYS, units=dict.fromkeys(ARRAYS, "1"), attributes={"settings": "{}"})
    return path


def test_any_bit_that_changed_in_an_hdf5_file_is_noticed(array_file: Path) -> None:
    """Or stands in the seal's own letters, and what is read is right."""
    content, draw = array_file.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(200):
        array_file.write_bytes(flipped(content, draw))
        complaint, arrays = answer(read_h5, array_file)
        if complaint:
            assert f"{array_file} is damaged" in complaint
            refused += 1
        else:
            for name, array in ARRAYS.items():
                np.testing.assert_array_equal(arrays[name], array)
    assert refused > 190


def test_other_programs_read_a_sealed_file(array_file: Path) -> None:
    with h5py.File(array_file) as file:
        np.testing.assert_array_equal(file["a/noise"], ARRAYS["a/noise"])
    with h5py.File(array_file, "r+") as file:
        file["b"][0] = 7
    assert read_h5(array_file)["b"][0] == 7, "who changes a file removes its seal"


def test_damage_without_a_seal_is_noticed_by_hdf5_or_not_but_never_a_crash(
    array_file: Path,
) -> None:
    with h5py.File(array_file, "r+") as file:
        file["b"][0] = 7
    content, draw = array_file.read_bytes(), random.Random(1)
    reads: list[Callable[[], Any]] = [
        lambda: read_h5(array_file),
        lambda: read_attributes(array_file),
        lambda: read_history(array_file, "a"),
    ]
    refused = 0
    for _ in range(100):
        array_file.write_bytes(flipped(content, draw, n_bits=3))
        for read in reads:
            complaint, _ = answer(read)
            assert not complaint or str(array_file) in complaint
            refused += bool(complaint)
    assert refused > 10


def test_a_damaged_history_is_named(tmp_path: Path) -> None:
    history = History(tmp_path / "history.h5", {"loss": "nats"})
    history.append("train", {"step": np.arange(100), "loss": np.zeros(100)})
    history.finish({})
    content, draw = history.path.read_bytes(), random.Random(2)
    for share in (0.0, 0.1, 0.5, 0.9):
        history.path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match=r"history\.h5 is damaged.*build it again"):
            read_history(history.path, "train")
    history.path.write_bytes(flipped(content[:-60], draw) + content[-60:])
    with pytest.raises(UserError, match=r"history\.h5 is damaged"):
        read_history(history.path, "train")


def test_a_small_file_that_stands_for_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.h5"
    with h5py.File(path, "w") as file:
        shape = (10**9, 28, 28)
        file.create_dataset("images", shape, np.uint8, chunks=(1000, 28, 28), compression="gzip")
    with pytest.raises(UserError, match=r"images\.h5 stands for more than 100 times its own size"):
        read_h5(path)


# --- torch ----------------------------------------------------------------------------------------


def test_any_bit_that_changed_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    """Or changes nothing that is read."""
    path = tmp_path / "checkpoint.pt"
    save_tensors(path, STATE)
    content, draw = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(200):
        path.write_bytes(flipped(content, draw))
        complaint, state = answer(load_tensors, path, "delete it to start afresh")
        if complaint:
            assert re.search(r"checkpoint\.pt .*; delete it to start afresh", complaint)
            refused += 1
        else:
            assert repr(state) == repr(STATE)
            assert torch.equal(state["weights"], STATE["weights"])
            assert torch.equal(state["generator"], STATE["generator"])
    assert refused > 100


class Hostile:
    """What runs a command where it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("form", ["pickle", "torch", "torch_legacy"])
def test_a_pickle_in_place_of_a_checkpoint_does_not_run(tmp_path: Path, form: str) -> None:
    witness, path = tmp_path / "witness", tmp_path / "checkpoint.pt"
    content = {"format": 2, "state": Hostile(witness)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(UserError, match=r"checkpoint\.pt .* nothing in it was run; delete it\."):
        load_tensors(path, "delete it")
    assert not witness.exists()
    if form == "pickle":
        pickle.loads(path.read_bytes())
        assert witness.exists(), "the pickle was no danger"


def test_a_checkpoint_that_unpacks_to_much_is_refused_at_once(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.pt", tmp_path / "model.pt"
    save_tensors(plain, {"a": torch.zeros(1 << 22)})
    with (
        zipfile.ZipFile(plain) as parts,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for part in parts.infolist():
            packed.writestr(part.filename, parts.read(part))
    assert path.stat().st_size < plain.stat().st_size / 100
    with pytest.raises(UserError, match=r"model\.pt is damaged"):
        load_tensors(path, "train again")


# --- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000])
def test_json_of_countless_blocks_is_refused(tmp_path: Path, content: str) -> None:
    from strata.artifacts import read_json
    from strata.config import read_settings
    from strata.neural_rg.config import RunSettings

    path = tmp_path / "analysis.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"analysis\.json: cannot be read as JSON"):
        read_json(path)
    with pytest.raises(UserError, match=r"analysis\.json: cannot be read as settings"):
        read_settings(RunSettings, path, "train")


# --- every stage ----------------------------------------------------------------------------------


def stages(workplace: Any) -> Iterator[tuple[str, list[str], list[Path]]]:
    """Yield module, arguments and the files of arrays, tensors or JSON it reads, of every job."""
    answer = workplace.snakemake("--forceall", "--dry-run", *workplace.targets)
    for block in re.split(r"\n(?=\[)", answer.stdout):
        command = re.search(r"Shell command: python -m (strata\.\S+) (.*)", block)
        made = re.search(r"^    output: (.*)", block, re.MULTILINE)
        if command is None or made is None:
            continue
        words = shlex.split(command[2])
        arguments = words[: words.index(">")]
        read = [word for word in arguments if word.endswith((".h5", ".pt", ".json"))]
        outputs = made[1].split(", ")
        yield command[1], arguments, [workplace.folder / w for w in read if w not in outputs]


def damages(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield in words, and as bytes, what can befall a file."""
    content, draw = path.read_bytes(), random.Random(path.name)
    for share in (0.0, draw.random(), 0.97):
        yield f"cut at {share:.3f}", content[: int(share * len(content))]
    if path.suffix == ".json":
        return
    yield "no such file at all", b"something else\n"
    places = [draw.randrange(len(content)) for _ in range(3)]
    if path.suffix == ".pt":
        places = [_within_largest_part(path, draw) for _ in range(3)]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        yield f"a bit of byte {place}", bytes(changed)


def _within_largest_part(path: Path, draw: random.Random) -> int:
    """Return a place in a file of torch where a tensor lies, and no padding."""
    with zipfile.ZipFile(path) as parts:
        largest = max(parts.infolist(), key=lambda part: part.file_size)
        content = parts.read(largest)
    start = path.read_bytes().index(content)
    return start + draw.randrange(len(content))


@pytest.mark.slow
def test_every_stage_names_the_damaged_file_and_leaves_all_as_it_was(
    whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(whole.folder)
    before = whole.files()
    wrong, n_cases, n_stages = [], 0, 0
    for module, arguments, inputs in stages(whole):
        main = importlib.import_module(module).main
        n_stages += 1
        for path in inputs:
            content = path.read_bytes()
            for damage, changed in damages(path):
                n_cases += 1
                path.write_bytes(changed)
                try:
                    main(arguments)
                    said = "nothing"
                except UserError as refusal:
                    said = str(refusal) if path.name not in str(refusal) else ""
                except Exception as error:
                    said = repr(error)
                if said:
                    wrong.append(f"{module} {path.name} ({damage}): {said[:200]}")
            path.write_bytes(content)
    print(f"{n_cases} damages of the inputs of {n_stages} stages")
    assert wrong == []
    assert n_stages >= 10
    assert whole.files() == before


@pytest.mark.slow
def test_a_damaged_checkpoint_says_that_it_can_be_deleted(whole: Any) -> None:
    trainings = [
        (module, arguments)
        for module, arguments, _ in stages(whole)
        if "--model" in arguments and module.endswith(".train")
        and not (whole.folder / arguments[arguments.index("--model") + 1]).with_name(
            "checkpoint.pt").exists()
    ]  # fmt: skip
    assert trainings
    for module, arguments in trainings:
        model = whole.folder / arguments[arguments.index("--model") + 1]
        checkpoint = model.with_name("checkpoint.pt")
        checkpoint.write_bytes(model.read_bytes()[:-1000])
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(whole.folder)
                with pytest.raises(UserError, match=r"checkpoint\.pt .*; delete it to start afr"):
                    importlib.import_module(module).main(arguments)
        finally:
            checkpoint.unlink()


def test_settings_are_read_with_care(tmp_path: Path) -> None:
    """A number of more digits than Python writes is no crash either."""
    from strata.config import read_settings
    from strata.neural_rg.config import RunSettings

    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"seed": [10**4000]}))
    with pytest.raises(UserError, match=r"settings\.json: seed: expected .*") as refusal:
        read_settings(RunSettings, path, "train")
    assert len(str(refusal.value)) < 500
