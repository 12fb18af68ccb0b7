"""One training step of the family: its loss and gradient against geomloss, torch's own network and
plain counts; curriculum and blur; evaluations against direct computations; the warning.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from geomloss import SamplesLoss
from torch import Tensor, nn

from strata.errors import UserError
from strata.hmm_rnn.exact import pair_moments, volatility
from strata.hmm_rnn.hmm import HiddenMarkovModel
from strata.hmm_rnn.learner import SequenceLearner
from strata.hmm_rnn.reference import Reference
from strata.hmm_rnn.rnn import NoiseDrivenRNN
from strata.hmm_rnn.training_settings import HMMTraining
from strata.learner import Learner
from strata.randomness import Generators

NamedHMM = Callable[[str], HiddenMarkovModel]
NewLearner = Callable[..., SequenceLearner]
T, N, KINDS = 6, 50, 3  # steps, sequences, symbols
MOMENTS = {"weight": 3.0, "word_length": 2, "lags": (1, 2, 4, 48)}
FITTING = (1, 2, 4)


@pytest.fixture
def new_learner(uneven_hmm: HiddenMarkovModel) -> NewLearner:
    """Return a function: settings that change, and the network's shape -> a learner."""

    def new(
        *,
        seed: int = 0,
        random_start: bool = False,
        model: HiddenMarkovModel = uneven_hmm,
        seq_len: int = T,
        shape: dict[str, Any] | None = None,
        **settings: Any,
    ) -> SequenceLearner:
        generators = Generators(seed, torch.device("cpu"))
        network = NoiseDrivenRNN(
            **{"input_size": 4, "hidden_size": 8, **(shape or {})},
            output_size=model.n_symbols,
            generator=generators.on_cpu("init"),
        )
        return SequenceLearner(
            network,
            Reference(model, floor=1.0, iid=3.0),
            HMMTraining.model_validate({"batch_size": N, "steps": 100, **settings}),
            seq_len=seq_len,
            num_seq=3 * (2 * N + 7),
            random_start=random_start,
            generators=generators,
        )

    return new


# --- by other means -----------------------------------------------------------------------------


def drawn(learner: SequenceLearner, name: str, n: int, n_steps: int) -> tuple[Tensor, ...]:
    """Draw start, noise and Gumbel numbers as the first use of a stream does."""
    generator, network = learner.generators.afresh(name), learner.module
    start = torch.zeros(n, network.num_layers, network.hidden_size)
    if learner.random_start:
        start.normal_(generator=generator)
    noise = torch.randn(n_steps, n, network.input_size, generator=generator)
    exponential = torch.empty(n_steps, n, network.output_size).exponential_(generator=generator)
    return start.double(), noise.double(), -exponential.log().double()


def by_torch(network: NoiseDrivenRNN, start: Tensor, noise: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the states of every layer, and the logits, of torch's own layers in double."""
    parameters = {name: p.double() for name, p in network.named_parameters()}
    states: list[Tensor] = []
    inputs = noise
    for index in range(network.num_layers):
        own = nn.RNN(inputs.shape[2], network.hidden_size, nonlinearity="relu", device="meta")
        weights = {
            "weight_ih_l0": parameters[f"layers.{index}.weight_input"],
            "weight_hh_l0": parameters[f"layers.{index}.weight_recurrent"],
            **dict.fromkeys(
                ("bias_ih_l0", "bias_hh_l0"),
                parameters.get(f"layers.{index}.bias", torch.zeros(network.hidden_size).double())
                / 2,
            ),
        }
        before = start[:, index][None].contiguous()
        inputs = torch.func.functional_call(own.double(), weights, (inputs, before))[0]
        states.append(inputs)
    bias = parameters.get("readout_bias", torch.zeros(network.output_size).double())
    return states, inputs @ parameters["readout_weight"].T + bias


def straight_through(scores: Tensor, tau: float) -> Tensor:
    """One-hot of the largest, plus a softmax that is zero but for its gradient."""
    soft = torch.softmax(scores / tau, -1)
    hard = nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).double()
    return hard + soft - soft.detach()


def by_geomloss(x: Tensor, y: Tensor, blur: float, *, debias: bool, n_steps: int) -> Tensor:
    how = SamplesLoss(
        "sinkhorn",
        p=2,
        blur=blur,
        scaling=0.5,
        diameter=math.sqrt(n_steps * KINDS),
        debias=debias,
    )
    with torch.enable_grad():  # geomloss leaves gradients enabled
        value: Tensor = how(x, y)
        return value


def term_by_loops(
    emission: Tensor, model: HiddenMarkovModel, word_length: int, lags: tuple[int, ...],
    softening: float | None,
) -> Tensor:  # fmt: skip
    """Moments of words, position by position, against products of matrices."""
    n_steps = len(emission)
    law, total = model.start, emission.new_zeros(())
    laws = [law := law @ model.transition if t else law for t in range(n_steps)]
    words = list(np.ndindex(*(KINDS,) * word_length))
    for lag in lags:
        positions = range(n_steps - lag - word_length + 1)
        for u in words:
            for v in words:
                found = sum(
                    torch.stack(
                        [emission[t + k, :, a] for k, a in enumerate(u)]
                        + [emission[t + lag + k, :, b] for k, b in enumerate(v)]
                    ).prod(0).mean()
                    for t in positions
                ) / len(positions)  # fmt: skip
                wanted: dict[int, set[int]] = {}
                for offset, word in ((0, u), (lag, v)):
                    for k, symbol in enumerate(word):
                        wanted.setdefault(offset + k, set()).add(symbol)
                exact = 0.0
                for t in positions:
                    p = laws[t]
                    for k in range(lag + word_length):
                        p = p @ model.transition if k else p
                        if len(wanted.get(k, set())) > 1:
                            p = p * 0
                        for symbol in wanted.get(k, set()):
                            p = p * model.emission[:, symbol]
                    exact += float(p.sum()) / len(positions)
                weight = 1.0 if softening is None else 1 / (exact + softening)
                total = total + weight * (found - exact) ** 2
    return total


def assert_same_gradients(learner: SequenceLearner, loss: Tensor, expected: Tensor) -> None:
    parameters = list(learner.module.parameters())
    found = torch.autograd.grad(loss, parameters)
    wanted = torch.autograd.grad(expected, parameters)
    for one, other in zip(found, wanted, strict=True):
        assert float(other.norm()) > 1e-6
        assert float((one - other).norm() / other.norm()) < 1e-3


# --- the loss -----------------------------------------------------------------------------------

LOSSES: dict[str, dict[str, Any]] = {
    "transport alone": {},
    "all terms": {"moments": MOMENTS, "activity_weight": 0.4, "tau": 2.0},
    "euclidean moments": {"moments": {**MOMENTS, "metric": "euclidean", "weight": 30.0}},
    "a softer chi2": {"moments": {**MOMENTS, "word_length": 1, "softening": 0.1}},
    "two layers, biases, random start": {
        "shape": {"num_layers": 2, "biased": (True, True)},
        "random_start": True,
        "activity_weight": 0.7,
        "moments": {**MOMENTS, "word_length": 1},
    },
    "a large blur": {"blur": 1.0, "activity_weight": 0.1},
    "a falling blur": {"blur_start": 2.0},
    "shorter sequences": {"curriculum": ({"until": 0.5, "seq_len": 5},), "moments": MOMENTS},
}


@pytest.mark.parametrize("changes", LOSSES.values(), ids=list(LOSSES))
def test_loss_and_gradient_are_those_of_other_means(
    changes: dict[str, Any], new_learner: NewLearner, uneven_hmm: HiddenMarkovModel
) -> None:
    """The gradient is that of the debiased divergence also where its self costs are left out."""
    learner = new_learner(**changes)
    settings, n_steps = learner.settings, 5 if "curriculum" in changes else T
    blur = settings.blur_start or settings.blur
    loss, metrics = learner.training_step(0)

    start, noise, gumbel = drawn(learner, "train", N, n_steps)
    states, logits = by_torch(learner.module, start, noise)
    emission = straight_through(logits + gumbel, settings.tau)
    generator = learner.generators.afresh(f"data, {n_steps} steps, block 0")
    symbols = uneven_hmm.sample(32 * N, n_steps, generator)[0][:N]
    x, y = emission.transpose(0, 1).flatten(1), torch.eye(KINDS).double()[symbols].flatten(1)
    cost = by_geomloss(x, y, blur, debias=False, n_steps=n_steps)
    divergence = by_geomloss(x, y, blur, debias=True, n_steps=n_steps)
    activity = torch.stack([state.log1p() for state in states]).mean()
    moments = torch.zeros(())
    assert ("moments" in metrics) == (settings.moments.weight > 0)
    if settings.moments.weight > 0:
        asked = settings.moments
        softening = asked.softening if asked.metric == "chi2" else None
        lags = tuple(lag for lag in FITTING if lag + asked.word_length <= n_steps)
        moments = term_by_loops(emission, uneven_hmm, asked.word_length, lags, softening)
        assert float(metrics["moments"]) == pytest.approx(moments.item(), rel=1e-4)
    terms = settings.moments.weight * moments + settings.activity_weight * activity

    total = cost + terms
    if N * math.exp(-1 / blur**2) > 1e-6:
        self_cost = by_geomloss(x, x.detach(), blur, debias=False, n_steps=n_steps)
        total = total - self_cost / 2
    assert float(metrics["transport"]) == pytest.approx(cost.item(), rel=1e-4)
    assert float(metrics["activity"]) == pytest.approx(activity.item(), rel=1e-4)
    assert (float(metrics["seq_len"]), float(metrics["blur"])) == (n_steps, pytest.approx(blur))
    assert not any(metric.requires_grad for metric in metrics.values())
    assert loss.item() == pytest.approx(total.item(), rel=1e-4)
    assert_same_gradients(learner, loss, divergence + terms)


def test_all_that_is_recorded_has_a_unit(new_learner: NewLearner) -> None:
    learner = new_learner(moments=MOMENTS)
    assert isinstance(learner, Learner)
    _, metrics = learner.training_step(0)
    evaluated = learner.evaluate()
    assert {*metrics, *evaluated} - {"loss"} == set(learner.units)
    assert not any(metric.requires_grad for metric in evaluated.values())
    assert learner.snapshot() == {}


def test_a_few_steps_downhill_raise_the_skill(new_learner: NewLearner, named_hmm: NamedHMM) -> None:
    """From emitting nearly independent symbols; the reference is that of the model itself."""
    learner = new_learner(
        model=named_hmm("HMMThree"), batch_size=150, moments=MOMENTS, shape={"hidden_size": 16}
    )
    learner.reference = Reference(learner.reference.model, floor=0.35, iid=1.0)
    before = float(learner.evaluate()["skill"])
    optimizer = torch.optim.Adam(learner.module.parameters(), 1e-2, betas=(0.9, 0.9))
    for step in range(60):
        loss, _ = learner.training_step(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(learner.evaluate()["skill"]) > before + 0.4


# --- what the loss is of, step by step ----------------------------------------------------------


def test_lengths_follow_the_curriculum(new_learner: NewLearner) -> None:
    stages = ({"until": 0.1, "seq_len": 3}, {"until": 0.25, "seq_len": 4})
    learner = new_learner(curriculum=stages, steps=40)
    lengths = [learner.length_at(step) for step in range(40)]
    assert lengths == [3] * 4 + [4] * 6 + [T] * 30
    for step, n_steps in ((3, 3), (4, 4), (10, T)):
        _, metrics = learner.training_step(step)
        assert float(metrics["seq_len"]) == n_steps
    assert new_learner(steps=40).length_at(0) == T


def test_the_blur_falls_geometrically_over_the_first_half(new_learner: NewLearner) -> None:
    learner = new_learner(blur=0.2, blur_start=3.2, steps=80)
    assert [learner.blur_at(step) for step in (0, 10, 20, 30, 40, 41, 79)] == pytest.approx(
        [3.2, 1.6, 0.8, 0.4, 0.2, 0.2, 0.2]
    )
    falling = [learner.blur_at(step) for step in range(41)]
    ratios = np.divide(falling[1:], falling[:-1])
    np.testing.assert_allclose(ratios, 16 ** (-1 / 40))
    assert {new_learner(blur=0.3).blur_at(step) for step in range(100)} == {0.3}


def test_fixed_data_come_round_after_round(
    new_learner: NewLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of num_seq: 2 batches of 50 and 7 sequences that are left over."""
    learner = new_learner(data="fixed")
    seen: list[Tensor] = []
    plain = learner._loss

    def watched(*arguments: Any, **how: Any) -> Any:
        seen.append(arguments[3])
        return plain(*arguments, **how)

    monkeypatch.setattr(learner, "_loss", watched)
    losses = [float(learner.training_step(step)[0].detach()) for step in range(6)]
    assert [len(batch) for batch in seen] == [50, 50, 7] * 2
    assert len({row.numpy().tobytes() for row in torch.cat(seen[:3])}) > 20
    for first, second in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(first, second)
    assert len(set(losses)) == 6, "the network's own numbers are new at every step"


def test_fresh_data_are_new_at_every_step(new_learner: NewLearner) -> None:
    learner = new_learner()
    batches = [learner.stream.batch(step, T) for step in range(4)]
    for i, batch in enumerate(batches):
        assert len(batch) == N
        assert not any(torch.equal(batch, other) for other in batches[:i])


# --- evaluations --------------------------------------------------------------------------------


def log_likelihood(model: HiddenMarkovModel, row: list[int]) -> float:
    """ln p of one sequence as a product of matrices."""
    law = model.start * model.emission[:, row[0]]
    for symbol in row[1:]:
        law = (law @ model.transition) * model.emission[:, symbol]
    return math.log(float(law.sum()))


@pytest.mark.parametrize("name", ["HMMThree", "HMMFully", "HMMCyclic", None])
@pytest.mark.parametrize("random_start", [False, True])
def test_an_evaluation_is_that_of_direct_computations(
    name: str | None,
    random_start: bool,
    new_learner: NewLearner,
    named_hmm: NamedHMM,
    uneven_hmm: HiddenMarkovModel,
) -> None:
    """Of new sequences of full length, also while the curriculum trains with shorter ones."""
    model = named_hmm(name) if name else uneven_hmm
    learner = new_learner(
        model=model,
        random_start=random_start,
        moments=MOMENTS,
        blur_start=1.0,
        curriculum=({"until": 0.9, "seq_len": 4},),
        shape={"biased": (True, True)},
    )
    learner.training_step(0)
    found = {key: float(value) for key, value in learner.evaluate().items()}

    start, noise, gumbel = drawn(learner, "eval", N, T)
    with torch.no_grad():
        states, logits = by_torch(learner.module, start, noise)
    symbols = (logits + gumbel).argmax(-1).T
    wanted = model.sample(N, T, learner.generators.afresh("eval data"))[0]
    points = [torch.eye(KINDS).double()[s].flatten(1) for s in (symbols, wanted)]
    loss = float(by_geomloss(*points, 0.2, debias=True, n_steps=T))
    one_hot = torch.eye(KINDS).double()[symbols.T]
    moments = float(term_by_loops(one_hot, model, 2, FITTING, 1e-4))

    counts = np.zeros((KINDS, KINDS))
    for row in symbols.tolist():
        for a, b in itertools.pairwise(row):
            counts[a, b] += 1
    law = pair_moments(model, T, [1])[0].numpy()
    rows = law / law.sum(1, keepdims=True)
    frequent = law.sum(1) >= 0.05
    transitions = np.divide(
        counts,
        counts.sum(1, keepdims=True),
        out=np.zeros((KINDS, KINDS)),
        where=counts.sum(1)[:, None] > 0,
    )
    changes = (symbols[:, 1:] != symbols[:, :-1]).double().sum(1).mean()
    likelihoods = [
        np.mean([log_likelihood(model, row) for row in s.tolist()]) / T for s in (symbols, wanted)
    ]
    expected = {
        "loss": loss,
        "skill": (3.0 - loss) / 2.0,
        "loss_to_floor": loss,
        "moments": moments,
        "objective": loss + 3.0 * moments,
        "activity": float(states[0].log1p().mean()),
        "likelihood_difference": likelihoods[0] - likelihoods[1],
        "frequency_error": np.abs(counts.sum(1) / counts.sum() - law.sum(1)).max(),
        "transition_error": np.abs(transitions - rows)[frequent].max(),
        "volatility_ratio": float(changes) / volatility(model, T),
    }
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_rare_symbol_has_no_part_in_the_transition_error(
    new_learner: NewLearner, named_hmm: NamedHMM
) -> None:
    """Symbol 1 of HMMTwo has the probability 0.01; a network that never emits it is right."""
    learner = new_learner(model=named_hmm("HMMTwo"))
    law = pair_moments(learner.model, T, [1])[0]
    rows = law / law.sum(1, keepdim=True)
    assert (law.sum(1) >= 0.05).tolist() == [True, False, True]
    errors = learner._symbol_errors(torch.tensor([[0, 0, 2, 2, 0]] * 3))
    both = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.0, 0.0], [0.5, 0.0, 0.5]])
    expected = (both - rows)[[0, 2]].abs().max()
    assert float(errors["transition_error"]) == pytest.approx(float(expected))
    assert float(errors["frequency_error"]) == pytest.approx(0.01, abs=1e-6)
    constant = learner._symbol_errors(torch.zeros(3, 5, dtype=torch.int64))
    assert float(constant["transition_error"]) == 1.0  # symbol 2 never comes
    assert float(constant["volatility_ratio"]) == 0.0


def test_evaluations_are_of_new_sequences_and_change_nothing_of_the_training(
    new_learner: NewLearner,
) -> None:
    plain, looked_at = new_learner(moments=MOMENTS), new_learner(moments=MOMENTS)
    evaluated = []
    for step in range(3):
        evaluated.append(float(looked_at.evaluate()["loss"]))
        for name, value in looked_at.module.state_dict().items():
            assert torch.equal(value, plain.module.state_dict()[name])
        losses = [learner.training_step(step)[0].detach() for learner in (plain, looked_at)]
        assert torch.equal(*losses)
    assert len(set(evaluated)) == 3


# --- the plateau --------------------------------------------------------------------------------

STUCK = {"after": 3, "min_skill": 0.5, "then": "warn"}


def stuck_learner(new_learner: NewLearner, named_hmm: NamedHMM, **changes: Any) -> SequenceLearner:
    """A learner whose network emits independent symbols, all equally likely, whatever it does."""
    model = named_hmm("HMMFully")
    learner = new_learner(
        model=model, seq_len=15, plateau_detection={**STUCK, **changes}, batch_size=100
    )
    learner.reference = Reference(model, floor=1.0, iid=4.5)
    with torch.no_grad():
        learner.module.readout_weight.zero_()
    return learner


def test_a_network_that_is_stuck_is_told_of_once(
    new_learner: NewLearner, named_hmm: NamedHMM, capsys: pytest.CaptureFixture[str]
) -> None:
    learner = stuck_learner(new_learner, named_hmm)
    for step in range(6):
        learner.training_step(step)
        assert float(learner.evaluate()["skill"]) < 0.5
        said = capsys.readouterr().out
        if step + 1 == 3:
            assert said.startswith("step 3: skill ")
            assert "below 0.5: the network emits little more than independent symbols" in said
            assert said.count("\n") == 1
        else:
            assert said == ""


def test_a_network_that_is_stuck_can_stop_the_run(
    new_learner: NewLearner, named_hmm: NamedHMM
) -> None:
    learner = stuck_learner(new_learner, named_hmm, then="stop")
    for step in range(2):
        learner.training_step(step)
        learner.evaluate()
    learner.training_step(2)
    with pytest.raises(UserError, match=r"step 3: skill -?0\.\d+, below 0\.5: .* another seed\."):
        learner.evaluate()


def test_a_network_with_skill_is_left_alone(
    new_learner: NewLearner, named_hmm: NamedHMM, capsys: pytest.CaptureFixture[str]
) -> None:
    learner = stuck_learner(new_learner, named_hmm, then="stop", after=1)
    learner.reference = Reference(learner.reference.model, floor=1.0, iid=1e6)
    learner.training_step(0)
    assert float(learner.evaluate()["skill"]) > 0.9
    assert capsys.readouterr().out == ""


def test_a_stored_step_goes_on(new_learner: NewLearner, named_hmm: NamedHMM) -> None:
    """So that a resumed run knows how far it is."""
    first = stuck_learner(new_learner, named_hmm)
    first.training_step(6)
    state = first.state_dict()
    second = stuck_learner(new_learner, named_hmm, then="stop")
    second.evaluate()
    second.load_state_dict(state)
    with pytest.raises(UserError, match="step 7: skill"):
        second.evaluate()
