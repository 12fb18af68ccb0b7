"""Captured steps against the same steps taken one by one. Left out without a CUDA device."""

import pytest
import torch
from torch import Tensor

from strata.captured import CapturedUpdate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Descent:
    """Weights that Adam moves towards what stands in `target`, counted in `n_steps`."""

    def __init__(self, *, n_before: int = 0) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn((3, 5), generator=generator).cuda())
        self.target = torch.randn((3, 5), generator=generator).cuda()
        self.n_steps = torch.full((), 7, dtype=torch.int64, device="cuda")
        self.rate = torch.tensor(0.1, device="cuda")
        self.optimizer = torch.optim.Adam([self.weight], lr=self.rate, capturable=True, fused=True)
        for _ in range(n_before):
            self.update()

    def update(self) -> dict[str, Tensor]:
        losses = (self.weight - self.target).square().sum(1)
        (self.weight.grad,) = torch.autograd.grad(losses.sum(), [self.weight])
        self.optimizer.step()
        self.n_steps += 1
        return {"losses": losses.detach(), "n_steps": self.n_steps}

    def state(self) -> list[Tensor]:
        moments = [t for s in self.optimizer.state.values() for t in s.values()]
        return [self.weight, self.n_steps, *moments]

    def captured(self) -> CapturedUpdate:
        return CapturedUpdate(self.update, self.state, torch.device("cuda"))


def assert_equal(first: Descent, second: Descent) -> None:
    for one, other in zip(first.state(), second.state(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("n_before", [0, 4])
def test_captured_steps_are_those_taken_one_by_one(n_before: int) -> None:
    """From the start, and from where an optimizer has moments already, as after resuming."""
    plain, learner = Descent(n_before=n_before), Descent(n_before=n_before)
    captured = learner.captured()
    for step in range(5):
        wanted, found = plain.update(), captured()
        torch.testing.assert_close(found["losses"], wanted["losses"], rtol=1e-6, atol=1e-7)
        assert found["n_steps"].item() == 8 + n_before + step
        assert_equal(learner, plain)


def test_capturing_takes_no_step() -> None:
    plain, learner = Descent(), Descent()
    learner.captured()
    assert torch.equal(learner.weight, plain.weight)
    assert learner.n_steps.item() == 7
    moments = learner.state()[2:]
    assert len(moments) == 3
    assert not any(moment.any() for moment in moments)


def test_what_is_written_between_steps_is_read_by_the_next() -> None:
    plain, learner = Descent(), Descent()
    captured = learner.captured()
    for target, rate in ((0.0, 0.1), (2.0, 0.03), (-1.0, 0.0)):
        for descent, step in ((plain, plain.update), (learner, captured)):
            descent.target.fill_(target)
            descent.rate.fill_(rate)
            step()
        assert_equal(learner, plain)


def test_the_next_step_overwrites_the_metrics() -> None:
    captured = Descent().captured()
    first = captured()
    before = first["losses"].clone()
    second = captured()
    assert first["losses"].data_ptr() == second["losses"].data_ptr()
    assert not torch.equal(first["losses"], before)


def test_what_a_step_reads_lives_as_long_as_it() -> None:
    """Memory that was freed would belong to the next tensors of its size."""
    plain, captured = Descent(), Descent().captured()
    squatters = [torch.full((3, 5), torch.nan, device="cuda") for _ in range(50)]
    losses = captured()["losses"]
    torch.testing.assert_close(losses, plain.update()["losses"], rtol=1e-6, atol=1e-7)
    assert len(squatters) == 50
