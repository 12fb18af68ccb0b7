"""Scores against closed forms and their other definitions; picks against brute force."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from strata.rgm.acquisition import ACQUISITIONS, exploration_rates, select

P_VALUE = 1e-4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def score(name: str, probabilities: Tensor) -> Tensor:
    return ACQUISITIONS[name](probabilities, generator())


def some_posteriors(draws: int = 6, pool: int = 40, classes: int = 5, seed: int = 1) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.dirichlet(np.full(classes, 0.5), (draws, pool)))


def one_hot(classes: Sequence[int], n_classes: int) -> Tensor:
    """One image; draw i is certain of class i in the sequence."""
    return torch.eye(n_classes, dtype=torch.float64)[list(classes)][:, None]


# --- the scores ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACQUISITIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_score_is_one_finite_number_per_image(name: str, dtype: torch.dtype) -> None:
    scores = score(name, some_posteriors().to(dtype))
    assert scores.shape == (40,)
    assert scores.dtype == dtype
    assert scores.isfinite().all()
    assert scores.min() >= 0


@pytest.mark.parametrize("name", sorted(ACQUISITIONS.keys() - {"random"}))
def test_scores_know_no_order_of_draws_and_classes(name: str) -> None:
    p = some_posteriors()
    order = torch.randperm(5, generator=generator(2))
    torch.testing.assert_close(score(name, p.flip(0)[..., order]), score(name, p))


@pytest.mark.parametrize("name", sorted(ACQUISITIONS.keys() - {"random"}))
def test_an_image_is_scored_by_itself(name: str) -> None:
    p = some_posteriors()
    parts = [score(name, part) for part in p.split(7, dim=1)]
    torch.testing.assert_close(torch.cat(parts), score(name, p))


@pytest.mark.parametrize("name", sorted(ACQUISITIONS.keys() - {"random"}))
def test_certainty_is_worth_nothing(name: str) -> None:
    assert score(name, one_hot([2, 2, 2], 4)).item() == 0


def test_entropies_are_those_of_known_distributions() -> None:
    rows = torch.tensor([[0.25] * 4, [0.5, 0.5, 0, 0], [0.5, 0.25, 0.125, 0.125]]).double()
    expected = torch.tensor([2.0, 1.0, 1.75]).double() * math.log(2)
    torch.testing.assert_close(score("entropy", rows[None]), expected)


def test_entropy_is_that_of_the_mean_over_the_draws() -> None:
    p = some_posteriors()
    expected = stats.entropy(p.numpy().mean(0), axis=-1)
    np.testing.assert_allclose(score("entropy", p).numpy(), expected, rtol=1e-12)


def test_margin_is_the_lead_of_the_first_class_over_the_second() -> None:
    p = some_posteriors()
    ordered = np.sort(p.numpy().mean(0), axis=-1)
    expected = 1 - (ordered[:, -1] - ordered[:, -2])
    np.testing.assert_allclose(score("margin", p).numpy(), expected, rtol=1e-12)
    assert score("margin", one_hot([0, 3], 4)).item() == 1, "a tie is worth most"


def test_draws_that_agree_carry_no_information() -> None:
    p = some_posteriors(draws=1).expand(9, -1, -1)
    assert score("mutual_information", p).abs().max() < 1e-14


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_draws_that_are_certain_and_disagree_carry_ln_k(n_classes: int) -> None:
    p = one_hot(range(n_classes), n_classes)
    expected = pytest.approx(math.log(n_classes), abs=1e-12)
    assert score("mutual_information", p).item() == expected


def test_mutual_information_is_the_mean_divergence_from_the_mean() -> None:
    """(1/D) sum_d KL(p_d || mean p)."""
    p = some_posteriors().numpy()
    divergence = stats.entropy(p, np.broadcast_to(p.mean(0), p.shape), axis=-1).mean(0)
    found = score("mutual_information", torch.from_numpy(p)).numpy()
    np.testing.assert_allclose(found, divergence, rtol=1e-10)
    assert (found <= stats.entropy(p.mean(0), axis=-1)).all()


def test_random_scores_are_uniform_and_follow_the_generator_alone() -> None:
    p = some_posteriors(draws=1, pool=5000)
    scores = ACQUISITIONS["random"](p, generator(3))
    assert stats.kstest(scores.numpy(), "uniform").pvalue > P_VALUE
    assert torch.equal(scores, ACQUISITIONS["random"](p.flip(1), generator(3)))
    assert not torch.equal(scores, ACQUISITIONS["random"](p, generator(4)))


@pytest.mark.parametrize("name", sorted(ACQUISITIONS.keys() - {"random"}))
@pytest.mark.parametrize(
    "wrong",
    [
        torch.tensor([[[0.7, 0.7]]]),
        torch.tensor([[[1.5, -0.5]]]),
        torch.tensor([[[math.nan, 1.0]]]),
        torch.ones(1, 1, 1),
        torch.ones(0, 3, 2) / 2,
    ],
)
def test_what_is_no_posterior_is_refused(name: str, wrong: Tensor) -> None:
    with pytest.raises(ValueError, match="robabilities"):
        score(name, wrong)


# --- the picks ----------------------------------------------------------------------------------


def some_pool(n: int = 60, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Scores and codes."""
    gen = generator(seed)
    scores = torch.randn(n, generator=gen, dtype=torch.float64)
    return scores, torch.randn(n, 3, generator=gen, dtype=torch.float64)


def picks(scores: Tensor, codes: Tensor, n: int, diversity: float, epsilon: float = 0.0) -> Tensor:
    return select(scores, codes, [epsilon] * n, generator(), diversity=diversity)


def picks_by_brute_force(scores: Tensor, codes: Tensor, n: int, diversity: float) -> list[int]:
    """The same greedy rule, written out with all pairs of distances and plain loops."""
    pairs = torch.cdist(codes, codes).tolist()
    lowest, highest = min(scores.tolist()), max(scores.tolist())
    worth = [(s - lowest) / (highest - lowest) for s in scores.tolist()]
    chosen = [worth.index(max(worth))]
    while len(chosen) < n:
        nearest = [min(row[j] for j in chosen) for row in pairs]
        values = {
            i: (1 - diversity) * worth[i] + diversity * nearest[i] / max(nearest)
            for i in range(len(worth))
            if i not in chosen
        }
        chosen.append(max(values, key=lambda i: values[i]))
    return chosen


def test_without_diversity_the_highest_scores_are_picked_in_order() -> None:
    scores, codes = some_pool()
    assert torch.equal(picks(scores, codes, 10, 0.0), scores.topk(10).indices)


@pytest.mark.parametrize("diversity", [0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_picks_are_those_of_brute_force(diversity: float, seed: int) -> None:
    scores, codes = some_pool(seed=seed)
    expected = picks_by_brute_force(scores, codes, 12, diversity)
    assert picks(scores, codes, 12, diversity).tolist() == expected


@pytest.mark.parametrize(("diversity", "n_clusters"), [(0.0, 1), (0.3, 4)])
def test_diversity_spreads_over_clusters_of_nearly_equal_scores(
    diversity: float, n_clusters: int
) -> None:
    """Four clusters of 25 codes; those of the first are worth a little more."""
    centres = 10.0 * torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    cluster = torch.arange(4).repeat_interleave(25)
    codes = centres[cluster] + 0.1 * torch.randn(100, 2, generator=generator(6))
    scores = torch.where(cluster == 0, 1.0, 0.95) + 0.01 * torch.rand(100, generator=generator(7))
    chosen = picks(torch.cat([scores, torch.zeros(1)]), torch.cat([codes, codes[:1]]), 4, diversity)
    assert len(cluster[chosen].unique()) == n_clusters


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_units_of_scores_and_codes_do_not_matter(scale: float) -> None:
    scores, codes = some_pool()
    expected = picks(scores, codes, 12, 0.3)
    assert torch.equal(picks(scale * scores - 5, codes, 12, 0.3), expected)
    assert torch.equal(picks(scores, scale * codes - 5, 12, 0.3), expected)


@given(
    n=st.integers(1, 15),
    diversity=st.sampled_from([0.0, 0.3, 1.0]),
    epsilon=st.sampled_from([0.0, 0.5, 1.0]),
    equal_scores=st.booleans(),
    equal_codes=st.booleans(),
)
def test_no_image_is_picked_twice(
    n: int, diversity: float, epsilon: float, equal_scores: bool, equal_codes: bool
) -> None:
    scores, codes = some_pool(15)
    scores = scores * 0 if equal_scores else scores
    codes = codes * 0 if equal_codes else codes
    chosen = picks(scores, codes, n, diversity, epsilon)
    assert chosen.shape == (n,)
    assert len(set(chosen.tolist())) == n
    assert set(chosen.tolist()) <= set(range(15))


def test_epsilon_one_is_uniform_over_ordered_pairs() -> None:
    scores, codes = some_pool(5)
    gen, n = generator(8), 4000
    counts = np.zeros((5, 5))
    for _ in range(n):
        first, second = select(scores, codes, [1.0, 1.0], gen, diversity=0.3).tolist()
        counts[first, second] += 1
    off_diagonal = counts[~np.eye(5, dtype=bool)]
    assert counts.trace() == 0
    assert stats.chisquare(off_diagonal, np.full(20, n / 20)).pvalue > P_VALUE


def test_epsilon_is_the_share_of_random_picks_of_each_place() -> None:
    """A random pick hits the best image with probability 1 / pool; the first pick explores."""
    scores, codes = some_pool(50)
    best, gen, n = scores.topk(2).indices.tolist(), generator(9), 4000
    chosen = torch.stack([select(scores, codes, [0.4, 0.0], gen, diversity=0.0) for _ in range(n)])
    first_is_best = (chosen[:, 0] == best[0]).double().mean().item()
    expected = 0.6 + 0.4 / 50
    assert abs(first_is_best - expected) < 4 * math.sqrt(expected * (1 - expected) / n)
    after_best = chosen[chosen[:, 0] == best[0], 1]
    assert (after_best == best[1]).all(), "the second pick never explores"


def test_picks_follow_the_generator() -> None:
    scores, codes = some_pool()
    epsilon = [0.5] * 10
    first, again, other = (
        select(scores, codes, epsilon, generator(seed), diversity=0.3) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_impossible_selections_are_refused() -> None:
    scores, codes = some_pool(5)
    with pytest.raises(ValueError, match="ask for fewer"):
        picks(scores, codes, 6, 0.3)
    for weight in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            picks(scores, codes, 2, weight)
    with pytest.raises(ValueError, match="finite"):
        picks(scores * math.nan, codes, 2, 0.3)


# --- exploration --------------------------------------------------------------------------------


def test_exploration_fades_geometrically_down_to_its_minimum() -> None:
    rates = exploration_rates(600, 0, initial=0.1, decay=0.995, minimum=0.01)
    assert rates[0] == 0.1
    assert rates[100] == pytest.approx(0.1 * math.exp(100 * math.log(0.995)))
    first_at_minimum = math.ceil(math.log(0.1) / math.log(0.995))
    assert rates[first_at_minimum - 1] > 0.01
    assert set(rates[first_at_minimum:]) == {0.01}


def test_exploration_goes_on_from_batch_to_batch() -> None:
    schedule = {"initial": 0.3, "decay": 0.9, "minimum": 0.05}
    parts = [rate for n in (0, 10, 20) for rate in exploration_rates(10, n, **schedule)]
    assert parts == exploration_rates(30, 0, **schedule)
    assert exploration_rates(0, 5, **schedule) == []
