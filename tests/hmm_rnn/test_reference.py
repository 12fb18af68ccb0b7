"""What losses mean beside a model: skill, geomloss, sources without memory, files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from geomloss import SamplesLoss
from scipy import stats
from torch import Tensor

from strata.artifacts import write_h5
from strata.errors import UserError
from strata.hmm_rnn.hmm import HiddenMarkovModel
from strata.hmm_rnn.reference import (
    Reference,
    independent_symbols,
    loss_of,
    one_hot_points,
    read_hmm,
    read_reference,
)

NamedHMM = Callable[[str], HiddenMarkovModel]
LAWS = ("start", "transition", "emission")


def written(path: Path, model: HiddenMarkovModel, **changed: np.ndarray | None) -> Path:
    arrays = {name: getattr(model, name).numpy() for name in LAWS}
    arrays |= {"floor": np.array([1.0, 2.0]), "iid": np.array([5.0, 8.0]), **changed}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


# --- skill --------------------------------------------------------------------------------------


def test_skill_is_one_at_the_floor_and_zero_without_memory(uneven_hmm: HiddenMarkovModel) -> None:
    reference = Reference(uneven_hmm, floor=2.0, iid=10.0)
    losses = torch.tensor([2.0, 10.0, 6.0, 1.0, 18.0])
    assert reference.skill(losses).tolist() == [1.0, 0.0, 0.5, 1.125, -1.0]
    assert reference.skill(torch.tensor(4.0)).item() == 0.75


# --- losses -------------------------------------------------------------------------------------


def test_a_sequence_is_a_point_of_one_hot_rows() -> None:
    symbols = torch.tensor([[0, 2], [1, 1]], dtype=torch.uint8)
    points = one_hot_points(symbols, 3)
    assert points.dtype == torch.float32
    assert points.tolist() == [[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0]]
    assert torch.equal(points, one_hot_points(symbols.long(), 3))
    other = torch.tensor([[0, 2, 1, 1]]), torch.tensor([[0, 1, 1, 2]])
    first, second = (one_hot_points(row, 3) for row in other)
    assert torch.dist(first, second).item() == pytest.approx(2.0)  # sqrt(2) per different symbol


def geomloss_of(first: Tensor, second: Tensor, n_symbols: int, blur: float) -> float:
    """geomloss on double-precision points that it finds the box of by itself."""
    x, y = (
        torch.eye(n_symbols, dtype=torch.float64)[symbols].flatten(1) for symbols in (first, second)
    )
    with torch.enable_grad():  # geomloss leaves gradients enabled
        return float(SamplesLoss("sinkhorn", p=2, blur=blur, scaling=0.5, debias=True)(x, y))


@pytest.mark.parametrize("blur", [0.05, 0.2, 1.0])
def test_losses_are_those_of_geomloss(blur: float, named_hmm: NamedHMM) -> None:
    """Every symbol at every step, so that the box of the points is that of all sequences."""
    model, generator = named_hmm("HMMThree"), torch.Generator().manual_seed(1)
    first, second = (model.sample(150, 8, generator)[0] for _ in range(2))
    for step in (0, 7):
        assert len(torch.cat([first, second])[:, step].unique()) == 3
    found = loss_of(first, second, 3, blur=blur, scaling=0.5)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert found.item() == pytest.approx(geomloss_of(first, second, 3, blur), rel=1e-4)


def test_a_batch_against_itself_has_no_loss_and_counts_of_bytes_are_symbols(
    uneven_hmm: HiddenMarkovModel,
) -> None:
    first, second = (
        uneven_hmm.sample(60, 6, torch.Generator().manual_seed(seed))[0] for seed in (2, 3)
    )
    how = {"blur": 0.2, "scaling": 0.5}
    assert loss_of(first, first, 3, **how).item() == pytest.approx(0.0, abs=1e-5)
    assert loss_of(first, second, 3, **how).item() > 0.1
    plain = loss_of(first, second, 3, **how)
    assert torch.equal(plain, loss_of(first.byte(), second, 3, **how))
    # the order of the sequences means nothing
    assert loss_of(first.flip(0), second, 3, **how).item() == pytest.approx(plain.item(), rel=1e-5)


def test_sources_without_memory_lose_more_than_the_model(named_hmm: NamedHMM) -> None:
    model, generator = named_hmm("HMMTwo"), torch.Generator().manual_seed(4)
    first, second = (model.sample(400, 12, generator)[0] for _ in range(2))
    law = torch.tensor([0.495, 0.01, 0.495], dtype=torch.float64)
    memoryless = independent_symbols(law, 400, 12, generator)
    how = {"blur": 0.2, "scaling": 0.5}
    floor, iid = (loss_of(batch, second, 3, **how) for batch in (first, memoryless))
    assert iid > 2 * floor


# --- a source without memory --------------------------------------------------------------------


def test_independent_symbols_have_their_law_at_every_step_and_no_memory() -> None:
    law = torch.tensor([0.5, 0.05, 0.3, 0.15], dtype=torch.float64)
    n = 20000
    symbols = independent_symbols(law, n, 5, torch.Generator().manual_seed(0))
    assert symbols.shape == (n, 5)
    for column in symbols.T:
        counts = torch.bincount(column, minlength=4).numpy()
        assert stats.chisquare(counts, n * law.numpy()).pvalue > 1e-4
    for lag in (1, 4):
        pairs = torch.bincount(symbols[:, 0] * 4 + symbols[:, lag], minlength=16).numpy()
        expected = n * torch.outer(law, law).flatten().numpy()
        assert stats.chisquare(pairs, expected).pvalue > 1e-4


def test_independent_symbols_follow_the_generator_and_leave_out_the_impossible() -> None:
    law = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)
    drawn = [
        independent_symbols(law, 30, 4, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].unique().tolist() == [0, 2]


# --- files --------------------------------------------------------------------------------------


def test_a_file_gives_its_model_and_the_means_of_its_losses(
    tmp_path: Path, uneven_hmm: HiddenMarkovModel
) -> None:
    path = written(tmp_path / "hmm.h5", uneven_hmm)
    reference = read_reference(path)
    assert (reference.floor, reference.iid) == (1.5, 6.5)
    for model in (reference.model, read_hmm(path)):
        for name in LAWS:
            assert torch.equal(getattr(model, name), getattr(uneven_hmm, name))


def test_a_model_alone_needs_no_losses(tmp_path: Path, uneven_hmm: HiddenMarkovModel) -> None:
    path = written(tmp_path / "hmm.h5", uneven_hmm, floor=None)
    assert read_hmm(path).n_symbols == 3
    with pytest.raises(UserError, match=r"hmm\.h5 holds no floor; name the right file\."):
        read_reference(path)


@pytest.mark.parametrize("read", [read_hmm, read_reference])
def test_what_holds_no_model_is_one_sentence(
    read: Callable[[Path], object], tmp_path: Path, uneven_hmm: HiddenMarkovModel
) -> None:
    bad = np.array([[0.8, 0.3], [0.05, 0.95]])
    path = written(tmp_path / "bad.h5", uneven_hmm, transition=bad)
    with pytest.raises(
        UserError, match=r"holds no hidden Markov model: .* as transition"
    ) as refusal:
        read(path)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)
    path = written(tmp_path / "half.h5", uneven_hmm, start=None, emission=None)
    with pytest.raises(UserError, match=r"half\.h5 holds no start and no emission"):
        read(path)
    with pytest.raises(UserError, match=r"nowhere\.h5 does not exist"):
        read(tmp_path / "nowhere.h5")
    (tmp_path / "text.h5").write_text("no such thing")
    with pytest.raises(UserError, match=r"text\.h5 is damaged or not an HDF5 file"):
        read(tmp_path / "text.h5")
