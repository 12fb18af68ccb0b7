"""On a CUDA device: sums in one pass, transport costs and captured training steps, against plain
ones. Left out where there is no such device.
"""

import math

import pytest
import torch

from strata.captured import CapturedLoss
from strata.hmm_rnn import gpu_sums
from strata.hmm_rnn.cost_tiles import smallest_exponent
from strata.hmm_rnn.hmm import HiddenMarkovModel, build_hmm
from strata.hmm_rnn.hmm_settings import HMMSettings
from strata.hmm_rnn.learner import SequenceLearner
from strata.hmm_rnn.reference import Reference, one_hot_points
from strata.hmm_rnn.rnn import NoiseDrivenRNN
from strata.hmm_rnn.sinkhorn import EntropicTransport
from strata.hmm_rnn.training_settings import HMMTraining, MomentSettings
from strata.randomness import Generators

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

T, N = 12, 700


def model() -> HiddenMarkovModel:
    return build_hmm(HMMSettings(model="HMMThree"))


@pytest.mark.parametrize(("n", "m"), [(4096, 4096), (1000, 777), (1, 5)])
@pytest.mark.parametrize("eps", [30.0, 0.04])
def test_sums_in_one_pass_equal_those_of_the_whole_matrix(n: int, m: int, eps: float) -> None:
    if not gpu_sums.AVAILABLE:
        pytest.skip("no triton")
    generator = torch.Generator("cuda").manual_seed(0)
    C = torch.randint(0, 30, (n, m), generator=generator, device="cuda").float()
    f, g = (torch.rand(k, generator=generator, device="cuda") for k in (n, m))
    smallest = smallest_exponent(torch.float32)
    rows, columns = gpu_sums.exponential_sums(C, f, g, eps, smallest)
    K = ((g - C + f[:, None]).double() / eps).clamp(min=smallest).exp()
    torch.testing.assert_close(rows, K.sum(1), rtol=2e-5, atol=0)
    torch.testing.assert_close(columns, K.sum(0), rtol=2e-5, atol=0)


@pytest.mark.parametrize("n", [N, 6000])
def test_transport_costs_equal_those_of_the_cpu(n: int) -> None:
    generator = torch.Generator().manual_seed(1)
    symbols = [model().sample(n, T, generator)[0] for _ in range(2)]
    found = []
    for device in ("cpu", "cuda"):
        x, y = (one_hot_points(s.to(device), 3) for s in symbols)
        x.requires_grad_()
        how = EntropicTransport(0.2, diameter=math.sqrt(3 * T), form="exponential")
        cost = how.cost(x, y)
        (slope,) = torch.autograd.grad(cost, x)
        found.append((cost.detach().cpu(), slope.cpu()))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=0)
    difference = (found[1][1] - found[0][1]).norm() / found[0][1].norm()
    assert difference < 1e-5


def test_the_exponential_form_never_makes_the_host_wait() -> None:
    generator = torch.Generator("cuda").manual_seed(2)
    on_gpu = model().to("cuda")
    x, y = (one_hot_points(on_gpu.sample(N, T, generator)[0], 3) for _ in range(2))
    x.requires_grad_()
    how = EntropicTransport(0.2, diameter=math.sqrt(3 * T), form="exponential")
    torch.autograd.grad(how.cost(x, y), x)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.grad(how.cost(x, y), x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def learner(device: str, **changes: object) -> SequenceLearner:
    generators = Generators(0, torch.device(device))
    network = NoiseDrivenRNN(
        input_size=10, hidden_size=20, output_size=3, generator=generators.on_cpu("init")
    ).to(device)
    settings = HMMTraining(
        batch_size=N, moments=MomentSettings(weight=10.0, word_length=2), activity_weight=0.1
    ).model_copy(update=changes)
    return SequenceLearner(
        network,
        Reference(model(), 1.0, 2.0),
        settings,
        seq_len=T,
        num_seq=3 * N,
        random_start=False,
        generators=generators,
    )


def test_a_captured_step_equals_a_plain_one_at_every_step() -> None:
    captured, plain = learner("cuda"), learner("cuda")
    for step in range(5):
        torch.testing.assert_close(
            captured.module.state_dict(), plain.module.state_dict(), rtol=1e-4, atol=1e-6
        )
        losses = []
        for who in (captured, plain):
            if who is captured:
                loss, metrics = who.training_step(step)
            else:
                wanted = who.stream.batch(step, T)
                drawn = who._draw(N, T, who.generators["train"])
                loss, metrics = who._loss(*drawn, wanted, blur=0.2)
            who.module.zero_grad()
            loss.backward()
            losses.append((loss.detach(), metrics["moments"]))
            with torch.no_grad():
                for weight in who.module.parameters():
                    assert weight.grad is not None
                    weight -= 1e-4 * weight.grad
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-6)


def test_a_captured_loss_sees_new_inputs_and_new_weights() -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0, 3.0], device="cuda"))
    captured = CapturedLoss(
        lambda x: ((weight * x).square().sum(), {"largest": x.max()}),
        [weight],
        [torch.ones(2, device="cuda")],
    )
    for x, w in (([1.0, 5.0], [2.0, 3.0]), ([-2.0, 0.5], [1.0, -1.0])):
        captured.inputs[0].copy_(torch.tensor(x))
        with torch.no_grad():
            weight.copy_(torch.tensor(w))
        weight.grad = None
        loss, metrics = captured()
        (3.0 * loss).backward()
        expected = sum((a * b) ** 2 for a, b in zip(w, x, strict=True))
        assert loss.item() == pytest.approx(expected)
        assert metrics["largest"].item() == max(x)
        assert weight.grad is not None
        assert weight.grad.tolist() == pytest.approx(
            [6 * a * b * b for a, b in zip(w, x, strict=True)]
        )
