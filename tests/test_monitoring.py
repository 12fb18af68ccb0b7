"""What a run says of itself: gradients that are not finite or jump, memory, time, and errors."""

import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from strata import memory, reporting, training
from strata.anomalies import Watch, gradient_norms, spikes
from strata.checkpoints import RunFiles, load_tensors
from strata.errors import Interrupted, UserError
from strata.history import read_history
from strata.memory import memory_in_words, resident_memory
from strata.randomness import Generators
from strata.reporting import Reporter
from strata.training import train_to_files
from strata.training_settings import TrainingSettings

CPU, CUDA = torch.device("cpu"), torch.device("cuda:1")


class Planes:
    """Weights that all fall alike; `factors` says what the gradient of each is multiplied by."""

    units: Mapping[str, str] = {"error": "1"}

    def __init__(self, factors: Callable[[int], Mapping[str, float]]) -> None:
        self.module = nn.ParameterDict({name: torch.zeros(1) for name in "abcde"})
        self.factors = factors

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        factors = {**dict.fromkeys("abcde", 1.0), **self.factors(step)}
        parts = [Scaled.apply(self.module[name], factors[name]) for name in "abcde"]
        return torch.stack(parts).sum() * factors.get("loss", 1.0), {}

    def evaluate(self) -> Mapping[str, Tensor]:
        return {"error": self.module["a"].detach()[0]}

    def snapshot(self) -> Mapping[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert not state


class Scaled(torch.autograd.Function):
    """The identity, with a gradient that is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def once(planned: dict[int, Mapping[str, float]]) -> Callable[[int], Mapping[str, float]]:
    return lambda step: planned.pop(step, {})


def run_files(folder: Path) -> RunFiles:
    return RunFiles(model=folder / "model.pt", history=folder / "history.h5")


def train(folder: Path, learner: Any, **changes: Any) -> None:
    settings = TrainingSettings(**{
        "steps": 20, "lr": 0.125, "evaluate_every": 5, "checkpoint_every": 5, **changes
    })  # fmt: skip
    train_to_files(
        learner,
        settings,
        run_files(folder),
        settings_json=settings.model_dump_json(),
        generators=Generators(0, CPU),
        monitor="error",
    )


# --- numbers that are not finite ----------------------------------------------------------------


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize(("factors", "first"), [
    ({6: {"loss": math.nan}}, "at step 7, the loss"),
    ({7: {"loss": math.inf, "b": math.nan}}, "at step 8, the loss"),
    ({7: {"b": math.nan}}, "at step 8, the gradient of b; the loss was finite"),
    ({9: {"b": math.inf, "d": math.nan}}, "at step 10, the gradient of b, d; the loss was finite"),
    ({5: {"c": -math.inf}, 6: {"a": math.nan}}, "at step 6, the gradient of c; the loss"),
    (
        {7: dict.fromkeys("abcde", math.nan)},
        "at step 8, the gradient of a, b, c and 2 more; the loss was finite",
    ),
    (
        {7: dict.fromkeys("abcde", 1.3e19)},
        "at step 8, the norm of all gradients together; each alone was finite",
    ),
])  # fmt: skip
def test_the_first_number_that_is_not_finite_is_named(
    tmp_path: Path,
    factors: dict[int, Mapping[str, float]],
    first: str,
    clip_norm: float | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Although it is looked for at step 10 only, when all weights may be spoilt."""
    train(tmp_path, Planes(once(dict(factors))), clip_norm=clip_norm)
    said = capsys.readouterr().out
    assert f"not finite by step 10 (first, {first}" in said
    assert said.count("not finite") == 1

    with pytest.raises(UserError, match=re.escape(f"by step 10 (first, {first}")):
        train(tmp_path / "stop", Planes(once(dict(factors))), on_nonfinite="stop")


def test_every_setback_names_its_own_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = iter(range(100))
    bad = {8: {"b": math.nan}, 20: {"loss": math.nan}}
    train(tmp_path, Planes(lambda _step: bad.get(next(calls), {})), checkpoint_every=10)
    said = capsys.readouterr().out
    assert "by step 10 (first, at step 9, the gradient of b; the loss was finite): back" in said
    assert "(first, at step 11, the loss): back to step 10" in said


def test_nothing_is_read_back_while_a_step_is_noted() -> None:
    """On a device without any numbers, reading one is an error."""
    meta = torch.device("meta")
    parameters = [nn.Parameter(torch.zeros(3, device=meta)) for _ in range(2)]
    parameters[0].grad = torch.zeros(3, device=meta)
    watch = Watch(["a", "b"], meta)
    for step in range(3):
        norms, total = gradient_norms(parameters, meta)
        watch.note(step, torch.zeros((), device=meta), norms, total)
    with pytest.raises((RuntimeError, NotImplementedError)):
        watch.is_finite()


@given(
    shapes=st.lists(st.lists(st.integers(1, 7), max_size=3), min_size=1, max_size=8),
    without=st.sets(st.integers(0, 7)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**16),
)
def test_norms_are_those_of_numpy_and_their_norm_is_torchs_bit_by_bit(
    shapes: list[list[int]], without: set[int], dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]
    for i, parameter in enumerate(parameters):
        if i not in without:
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=dtype)
    norms, total = gradient_norms(parameters, CPU)
    expected = [0.0 if p.grad is None else np.linalg.norm(p.grad.numpy()) for p in parameters]
    np.testing.assert_allclose(norms.numpy(), expected, rtol=1e-5)
    gradients = [p.grad for p in parameters if p.grad is not None]
    assert torch.equal(total, nn.utils.get_total_norm(gradients))


def test_gradients_of_several_number_formats_have_one_norm() -> None:
    parameters = [nn.Parameter(torch.zeros(1, dtype=d)) for d in (torch.float32, torch.float64)]
    for parameter, value in zip(parameters, (3.0, 4.0), strict=True):
        parameter.grad = torch.full_like(parameter, value)
    norms, total = gradient_norms(parameters, CPU)
    assert norms.tolist() == [3.0, 4.0]
    assert total.item() == 5.0


class Rooted(Planes):
    """Its loss is finite, the derivative of its square root is not."""

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss, metrics = super().training_step(step)
        return (loss + (0.0 * self.module["b"]).sqrt().sum() if step == 7 else loss), metrics


@pytest.mark.filterwarnings("ignore:Error detected in")
def test_the_operation_that_makes_a_nan_is_named_on_request(tmp_path: Path) -> None:
    train(tmp_path, Rooted(once({})), on_nonfinite="step_back", steps=7)
    with pytest.raises(RuntimeError, match=r"Function 'MulBackward0' returned nan") as error:
        train(tmp_path / "looking", Rooted(once({})), detect_anomaly=True)
    assert "step 8" in error.value.__notes__[0]
    assert not torch.is_anomaly_enabled()
    with pytest.raises(UserError, match="at step 8, the gradient of b; the loss was finite"):
        train(tmp_path / "not looking", Rooted(once({})), on_nonfinite="stop")


# --- gradients that jump ------------------------------------------------------------------------


def test_a_gradient_that_jumps_is_said_once_with_its_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jumps = {11: 11.0, 13: 30.0, 17: 9.9}
    steps = {step: dict.fromkeys("abcde", factor) for step, factor in jumps.items()}
    train(tmp_path, Planes(once(steps)))
    said = [line for line in capsys.readouterr().out.splitlines() if "gradient norms" in line]
    median, largest = math.sqrt(5), 30 * math.sqrt(5)
    assert said == [
        f"2 of the last 5 recorded gradient norms exceed 10 times the run's median ({median:.3g});"
        f" the largest is {largest:.3g}, at step 14"
    ]


def test_a_killed_run_compares_with_all_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the kill the rows so far are 10 small ones and 5 large ones."""

    def factors(step: int) -> Mapping[str, float]:
        if step == 12 and not killed:
            killed.append(step)
            raise KeyboardInterrupt
        return dict.fromkeys("abcde", 1.0 if step < 10 else 11.0)

    killed: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Planes(factors))
    train(tmp_path, Planes(factors))
    said = capsys.readouterr().out
    assert "5 of the last 5 recorded gradient norms exceed 10 times" in said
    assert said.count("gradient norms") == 1, "among 20 rows with 10 large ones none stands out"


def test_jumps_are_counted_among_the_new_rows_against_the_median_of_all() -> None:
    steps, norms = np.arange(3, 33, 3), np.array([1, 99, 1, 2, 1, 1, 10.0, 50, 10.1, 30])
    assert spikes(steps, norms, 2) is None  # the median is 6
    assert spikes(steps[:7], norms[:7], 5) is None  # 10 times 1 does not exceed it
    assert spikes(steps[:9], norms[:9], 3) == (
        "1 of the last 3 recorded gradient norms exceed 10 times the run's median (2); the largest "
        "is 50, at step 24"
    )


# --- memory and time ----------------------------------------------------------------------------


def test_resident_memory_grows_by_what_is_written_to() -> None:
    before = resident_memory()
    block = np.ones(200 * 2**20, dtype=np.uint8)
    grown = resident_memory() - before
    assert 190 < grown < 250
    del block


def test_resident_memory_is_what_the_system_says() -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("this system has no /proc")
    said = re.search(r"VmRSS:\s+(\d+) kB", status.read_text())
    assert said is not None
    assert resident_memory() == pytest.approx(int(said[1]) / 1024, rel=0.05)


def test_log_lines_say_the_memory_in_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, Planes(once({})))
    line = re.search(r"^step 20/20: .* ms a step, (\d+) MiB\)$", capsys.readouterr().out, re.M)
    assert line is not None
    assert int(line[1]) == pytest.approx(resident_memory(), rel=0.2)


def test_on_cuda_the_most_that_tensors_took_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "resident_memory", lambda: 1000.4)
    taken = {CUDA: 3 * 2**30}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", taken.__getitem__)
    assert memory_in_words(CUDA) == "1000 MiB, at most 3072 MiB on cuda:1"
    assert memory_in_words(CPU) == "1000 MiB"


def test_on_cuda_the_clock_is_read_when_the_device_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in device is busy for ten seconds per wait, and nobody else moves the clock."""
    clock = [100.0]

    def wait(device: torch.device) -> None:
        assert device == CUDA
        clock[0] += 10.0

    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    monkeypatch.setattr(reporting, "memory_in_words", lambda _device: "much")
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    for device in (CUDA, CPU):
        with Reporter(4, 0, device) as report:
            clock[0] += 2.0
            report.line(4, {"error": 1.0})
    assert re.findall(r"\((.*) ms a step, much\)", capsys.readouterr().out) == ["3e+03", "500"]


def test_a_run_beyond_its_memory_limit_is_saved_and_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole", Planes(once({})))
    held = iter([400.0, 500.0, 500.5])
    monkeypatch.setattr(training, "resident_memory", lambda: next(held))
    with pytest.raises(Interrupted, match=r"at 501 MiB .*limit is 500 MiB. after saving st"):
        train(tmp_path, Planes(once({})), memory_limit=500, checkpoint_every=20)
    state = load_tensors(run_files(tmp_path).checkpoint, "")
    assert state["progress"]["step"] == 15
    train(tmp_path, Planes(once({})), memory_limit=500, checkpoint_every=20)  # asks no more
    files = [run_files(folder).history for folder in (tmp_path, tmp_path / "whole")]
    for phase in ("train", "eval"):
        one, other = (read_history(file, phase) for file in files)
        assert set(one) == set(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_the_history_says_nothing_of_memory(tmp_path: Path) -> None:
    for name in ("one", "other"):
        train(tmp_path / name, Planes(once({})), memory_limit=10**6)
    one, other = (run_files(tmp_path / name).history.read_bytes() for name in ("one", "other"))
    assert one == other
    assert set(read_history(tmp_path / "one" / "history.h5", "eval")) == {"step", "error"}


# --- errors of any kind -------------------------------------------------------------------------


class Faulty(Planes):
    """Fails where it is told to, with an error of the given kind."""

    def __init__(self, where: str, kind: type[BaseException], step: int = 7) -> None:
        super().__init__(once({}))
        self.where, self.kind, self.step = where, kind, step
        self.n_evaluated = 0

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        if self.where == "step" and step == self.step:
            raise self.kind("a mistake")
        return super().training_step(step)

    def evaluate(self) -> Mapping[str, Tensor]:
        self.n_evaluated += 1
        if self.where == "evaluation" and self.n_evaluated == 2:
            raise self.kind("a mistake")
        return super().evaluate()


@pytest.mark.parametrize(("where", "said"), [
    ("step", "in step 8 of the training"),
    ("evaluation", "in the evaluation at step 10 of the training"),
])  # fmt: skip
def test_a_mistake_in_a_step_says_where_it_was_and_where_to_go_on(
    tmp_path: Path, where: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZeroDivisionError, match="a mistake") as error:
        train(tmp_path, Faulty(where, ZeroDivisionError))
    (note,) = error.value.__notes__
    assert said in note
    assert f"Step 5 is saved in {run_files(tmp_path).checkpoint}" in note
    train(tmp_path, Planes(once({})))
    assert "resuming from step 5" in capsys.readouterr().out


def test_the_saved_step_is_known_before_the_first_checkpoint_and_after_a_restart(
    tmp_path: Path,
) -> None:
    for step, saved in ((0, 0), (12, 10), (11, 10)):
        with pytest.raises(ValueError, match="a mistake") as error:
            train(tmp_path, Faulty("step", ValueError, step))
        assert (
            f"in step {step + 1} of the training. Step {saved} is saved"
            in (error.value.__notes__[0])
        )


@pytest.mark.parametrize("kind", [UserError, Interrupted, KeyboardInterrupt])
def test_what_is_no_mistake_gets_no_note(tmp_path: Path, kind: type[BaseException]) -> None:
    with pytest.raises(kind) as error:
        train(tmp_path, Faulty("step", kind))
    assert not getattr(error.value, "__notes__", [])
