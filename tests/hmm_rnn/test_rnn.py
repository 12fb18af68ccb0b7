"""Networks that emit: against torch's own network, step by step, and the softmax they draw from."""

import inspect
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from strata.hmm_rnn import rnn as rnn_module
from strata.hmm_rnn.rnn import MODES, NoiseDrivenRNN, emitted, gumbel_like

NetworkOf = Callable[..., NoiseDrivenRNN]
SIZES = {"input_size": 4, "hidden_size": 6, "output_size": 3}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(num_layers: int = 1, *, biased: tuple[bool, bool] = (False, False)) -> NoiseDrivenRNN:
    return NoiseDrivenRNN(
        **SIZES, num_layers=num_layers, biased=biased, generator=seeded(3)
    ).double()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def torchs_own(own: NoiseDrivenRNN) -> nn.RNN:
    """Return a `torch.nn.RNN` with the same weights; it has two biases per layer."""
    same = nn.RNN(
        own.input_size, own.hidden_size, own.num_layers, nonlinearity="relu", device="meta"
    )
    same = same.to_empty(device="cpu").double()
    with torch.no_grad():
        for index, layer in enumerate(own.layers):
            getattr(same, f"weight_ih_l{index}").copy_(layer.weight_input)
            getattr(same, f"weight_hh_l{index}").copy_(layer.weight_recurrent)
            getattr(same, f"bias_ih_l{index}").copy_(
                torch.zeros(own.hidden_size) if layer.bias is None else layer.bias
            )
            getattr(same, f"bias_hh_l{index}").zero_()
    return same


# --- the network --------------------------------------------------------------------------------


@pytest.mark.parametrize("biased", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_states_logits_and_gradients_are_those_of_torch(
    num_layers: int, biased: tuple[bool, bool]
) -> None:
    own = network(num_layers, biased=biased)
    same = torchs_own(own)
    noise, start = normal(8, 5, 4), normal(5, num_layers, 6, seed=1).requires_grad_()
    other_start = start.detach().transpose(0, 1).contiguous().requires_grad_()
    weights = normal(8, 5, 3, seed=2)

    hidden = own.hidden(noise, start)
    logits = own(noise, start)
    (weights * logits).sum().backward()
    expected, end = same(noise, other_start)
    expected_logits = expected @ own.readout_weight.detach().T
    if own.readout_bias is not None:
        expected_logits = expected_logits + own.readout_bias.detach()
    (weights * expected_logits).sum().backward()

    assert len(hidden) == num_layers
    torch.testing.assert_close(hidden[-1], expected)
    torch.testing.assert_close(logits, expected_logits)
    torch.testing.assert_close(torch.stack([states[-1] for states in hidden]), end)
    assert start.grad is not None
    assert other_start.grad is not None
    torch.testing.assert_close(start.grad, other_start.grad.transpose(0, 1))
    for index, layer in enumerate(own.layers):
        pairs = [("weight_input", "weight_ih"), ("weight_recurrent", "weight_hh")]
        pairs += [("bias", "bias_ih")] if biased[0] else []
        for mine, theirs in pairs:
            torch.testing.assert_close(
                getattr(layer, mine).grad, getattr(same, f"{theirs}_l{index}").grad
            )
    readout = torch.einsum("tso,tsu->ou", weights, expected.detach())
    torch.testing.assert_close(own.readout_weight.grad, readout)
    if own.readout_bias is not None:
        torch.testing.assert_close(own.readout_bias.grad, weights.sum((0, 1)))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_step_at_a_time_is_the_whole_run(num_layers: int) -> None:
    own = network(num_layers, biased=(True, True))
    noise, start = normal(6, 5, 4), normal(5, num_layers, 6, seed=1)
    whole = torch.stack(own.hidden(noise, start), dim=2)
    state = start
    for t, inputs in enumerate(noise):
        state = own.step(state, inputs)
        torch.testing.assert_close(state, whole[t])
    single = own.step(start[0], noise[0, 0])  # without an axis for the sequences
    torch.testing.assert_close(single, whole[0, 0])


def test_weights_start_uniform_within_one_over_the_root_of_the_units() -> None:
    own = NoiseDrivenRNN(
        input_size=100, hidden_size=150, num_layers=2, output_size=3, biased=(True, True),
        generator=seeded(),
    )  # fmt: skip
    shapes = {name: tuple(p.shape) for name, p in own.named_parameters()}
    assert shapes == {
        "readout_weight": (3, 150),
        "readout_bias": (3,),
        "layers.0.weight_input": (150, 100),
        "layers.1.weight_input": (150, 150),
        **{f"layers.{i}.weight_recurrent": (150, 150) for i in range(2)},
        **{f"layers.{i}.bias": (150,) for i in range(2)},
    }
    bound = 150**-0.5
    for name, parameter in own.named_parameters():
        values = (parameter.detach().flatten() / bound + 1) / 2
        assert stats.kstest(values.numpy(), "uniform").pvalue > 1e-4, name
    plain = network()
    assert {name for name, _ in plain.named_parameters()} == {
        "readout_weight", "layers.0.weight_input", "layers.0.weight_recurrent",
    }  # fmt: skip


def test_weights_follow_the_generator() -> None:
    first, again, other = (
        NoiseDrivenRNN(**SIZES, generator=seeded(seed)).state_dict() for seed in (1, 1, 2)
    )
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert not torch.equal(value, other[name])


def test_starts_and_noise_have_the_shapes_of_the_network() -> None:
    own = network(2)
    assert torch.equal(own.zero_start(5), torch.zeros(5, 2, 6, dtype=torch.float64))
    for values, shape in (
        (own.random_start(500, seeded(1)), (500, 2, 6)), (own.noise(50, 30, seeded(2)), (50, 30, 4))
    ):  # fmt: skip
        assert values.shape == shape
        assert stats.kstest(values.flatten().numpy(), "norm").pvalue > 1e-4


# --- modes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("biased", [(False, False), (True, True)])
@pytest.mark.parametrize("mode", MODES)
def test_modes_switch_parts_off_from_any_start(mode: str, biased: tuple[bool, bool]) -> None:
    """Higher layers hear the layers below in every mode."""
    own = network(2, biased=biased).requires_grad_(False)
    state, noise = normal(5, 2, 6), normal(5, 4, seed=1)
    below, above = own.layers
    expected, inputs = [], noise
    for index, layer in enumerate((below, above)):
        recurrent = torch.eye(6) if mode == "input_only" else layer.weight_recurrent
        total = state[:, index] @ recurrent.double().T
        if mode != "recurrence_only" or index == 1:
            total = total + inputs @ layer.weight_input.T
        if layer.bias is not None:
            total = total + layer.bias
        inputs = total.clamp(min=0)
        expected.append(inputs)
    torch.testing.assert_close(own.step(state, noise, mode), torch.stack(expected, 1))


def test_without_biases_a_network_of_zeros_stays_there_alone(network_of: NetworkOf) -> None:
    own = network().requires_grad_(False)
    silent = own.generate(3, 5, seeded(), mode="recurrence_only", keep=("hidden",))
    assert silent.hidden is not None
    assert (silent.hidden == 0).all()
    growing = network_of([[1.0]], [[2.0]], [[1.0], [0.0]])
    start = torch.tensor([[[1.0]], [[-3.0]]], dtype=torch.float64)
    run = growing.generate(2, 4, seeded(), start=start, mode="recurrence_only", keep=("hidden",))
    assert run.hidden is not None
    assert run.hidden[..., 0, 0].tolist() == [[2.0, 4.0, 8.0, 16.0], [0.0] * 4]


def test_without_biases_a_step_is_positively_homogeneous() -> None:
    own = network(2).requires_grad_(False)
    state, noise = normal(5, 2, 6), normal(5, 4, seed=1)
    torch.testing.assert_close(own.step(3 * state, 3 * noise), 3 * own.step(state, noise))


def test_an_unknown_mode_is_refused() -> None:
    own, step = network(), inspect.unwrap(NoiseDrivenRNN.step)  # without the check of types
    with pytest.raises(
        ValueError, match="among full, recurrence_only, input_only; got 'recurrent'"
    ):
        step(own, own.zero_start(2), normal(2, 4), "recurrent")


# --- generation ---------------------------------------------------------------------------------


class Prepared(NoiseDrivenRNN):
    """A network whose noise is read from a table instead of drawn, however it is asked for."""

    table: Tensor
    asked: list[int]

    def noise(self, n_steps: int, n_sequences: int, generator: torch.Generator) -> Tensor:
        first = sum(self.asked)
        self.asked.append(n_steps)
        return self.table[first : first + n_steps, :n_sequences]


def prepared(table: Tensor, num_layers: int = 1) -> Prepared:
    own = Prepared(**SIZES, num_layers=num_layers, biased=(True, True), generator=seeded(3))
    own = own.double().requires_grad_(False)
    own.table, own.asked = table, []
    return own


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_free_run_is_one_step_after_the_other(num_layers: int, mode: str) -> None:
    """From a start of its own, with a burn-in that is not kept."""
    table, start = normal(9, 5, 4), normal(5, num_layers, 6, seed=1)
    own = prepared(table, num_layers)
    run = own.generate(
        5, 6, seeded(7), start=start, mode=mode, burn_in=3, keep=("hidden", "logits")
    )
    assert run.hidden is not None
    assert run.logits is not None
    state = start
    for t, inputs in enumerate(table):
        state = own.step(state, inputs, mode)
        if t >= 3:
            torch.testing.assert_close(run.hidden[:, t - 3], state)
            torch.testing.assert_close(run.logits[:, t - 3], own.logits(state[:, -1]))
    assert run.hidden.shape == (5, 6, num_layers, 6)
    assert torch.equal(run.end, run.hidden[:, -1])
    assert run.symbols.shape == (5, 6)
    assert sum(own.asked) == 9


@pytest.mark.parametrize("held", [1, 5 * 4 * 2, 5 * 4 * 3 + 7, 10**6])
def test_a_run_does_not_depend_on_how_much_noise_is_held(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = normal(11, 5, 4)
    whole = prepared(table).generate(5, 8, seeded(7), burn_in=3, keep=("hidden",))
    monkeypatch.setattr(rnn_module, "GENERATED_AT_ONCE", held)
    own = prepared(table)
    run = own.generate(5, 8, seeded(7), burn_in=3, keep=("hidden",))
    assert max(own.asked) == min(11, max(1, held // 20))
    assert run.hidden is not None
    assert whole.hidden is not None
    assert torch.equal(run.hidden, whole.hidden)
    assert torch.equal(run.symbols, whole.symbols)  # the table leaves the generator to the symbols


def test_runs_follow_the_generator_and_keep_nothing_that_is_not_asked_for() -> None:
    own = network(biased=(True, True)).requires_grad_(False)
    first, again, other = (own.generate(20, 30, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.symbols, again.symbols)
    assert torch.equal(first.end, again.end)
    assert not torch.equal(first.symbols, other.symbols)
    assert (first.hidden, first.logits) == (None, None)
    kept = own.generate(20, 30, seeded(1), keep=("logits",))
    assert torch.equal(kept.symbols, first.symbols)
    assert kept.hidden is None
    assert kept.logits is not None


def test_the_first_symbol_comes_after_the_first_input(network_of: NetworkOf) -> None:
    """One unit that is as large as the input where that is positive; sharp readout with a bias."""
    own = network_of([[1.0]], [[0.0]], [[1e9], [0.0]], readout_bias=[-1e3, 0.0])
    run = own.generate(2000, 3, seeded(), keep=("hidden",))
    assert run.hidden is not None
    positive = run.hidden[..., 0, 0] > 0
    assert 0.4 < positive[:, 0].double().mean() < 0.6
    assert torch.equal(run.symbols == 0, positive)
    # in training alike: the logits of the first step know the first input
    noise = torch.tensor([[[2.0]], [[-1.0]]], dtype=torch.float64)
    assert own(noise, own.zero_start(1))[:, 0, 0].tolist() == [2e9 - 1e3, -1e3]


def test_emitted_symbols_have_the_frequencies_of_the_softmax(network_of: NetworkOf) -> None:
    """Constant logits, by the readout's bias alone; every step, and pairs of steps."""
    bias = [0.3, -1.2, 1.0, -2.5]
    own = network_of([[0.0]], [[0.0]], [[0.0]] * 4, readout_bias=bias)
    n = 20000
    symbols = own.generate(n, 3, seeded(5)).symbols
    law = torch.softmax(torch.tensor(bias, dtype=torch.float64), 0)
    for column in symbols.T:
        counts = torch.bincount(column, minlength=4).numpy()
        assert stats.chisquare(counts, n * law.numpy()).pvalue > 1e-4
    pairs = torch.bincount(symbols[:, 0] * 4 + symbols[:, 1], minlength=16).numpy()
    assert stats.chisquare(pairs, n * torch.outer(law, law).flatten().numpy()).pvalue > 1e-4


def test_emitted_symbols_follow_logits_that_vary() -> None:
    """Given its logits a symbol is drawn from their softmax: counts against expected counts."""
    own = network(2, biased=(True, True)).requires_grad_(False)
    own.readout_weight.mul_(20)
    run = own.generate(3000, 5, seeded(6), burn_in=2, keep=("logits",))
    assert run.logits is not None
    p = torch.softmax(run.logits, -1)
    assert p.std((0, 1)).min() > 0.05
    hit = nn.functional.one_hot(run.symbols, 3).double()
    for weights in (torch.ones_like(p), p - p.mean((0, 1))):
        difference = (weights * (hit - p)).sum((0, 1))
        error = (weights.square() * p * (1 - p)).sum((0, 1)).sqrt()
        assert (difference / error).abs().max() < 4


@pytest.mark.parametrize(("n_sequences", "n_steps", "burn_in"), [(0, 3, 0), (3, 0, 0), (3, 3, -1)])
def test_a_run_of_nothing_is_refused(n_sequences: int, n_steps: int, burn_in: int) -> None:
    expected = f"got {n_sequences} and {n_steps} after {burn_in}"
    with pytest.raises(ValueError, match=f"at least one sequence and one step; {expected}"):
        network().generate(n_sequences, n_steps, seeded(), burn_in=burn_in)


# --- symbols with a gradient --------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
def test_emission_is_one_hot_forwards_and_a_softmax_backwards(tau: float) -> None:
    logits, gumbel = normal(7, 5, 3).requires_grad_(), normal(7, 5, 3, seed=1)
    weights = normal(7, 5, 3, seed=2)
    drawn = emitted(logits, gumbel, tau)
    expected = nn.functional.one_hot((logits + gumbel).argmax(-1), 3).double()
    assert torch.equal(drawn.detach(), expected)
    (found,) = torch.autograd.grad((weights * drawn).sum(), logits)
    soft = torch.softmax((logits + gumbel) / tau, -1)
    (slope,) = torch.autograd.grad((weights * soft).sum(), logits)
    torch.testing.assert_close(found, slope)
    assert found.abs().max() > 1e-3


def test_gumbel_numbers_are_gumbel_and_draw_from_the_softmax() -> None:
    logits = torch.tensor([1.0, -0.5, 0.2, 0.0], dtype=torch.float64).expand(20000, 4)
    gumbel = gumbel_like(logits, seeded(4))
    assert gumbel.shape == logits.shape
    assert stats.kstest(gumbel.flatten().numpy(), "gumbel_r").pvalue > 1e-4
    counts = emitted(logits, gumbel).sum(0)
    law = torch.softmax(logits[0], 0)
    assert stats.chisquare(counts.numpy(), 20000 * law.numpy()).pvalue > 1e-4
