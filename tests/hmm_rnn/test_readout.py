"""Angles of the readout: vectors known by hand, and angles between subspaces by scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from strata.hmm_rnn.readout import angles_between, angles_to_plane, projected_rows

ROWS = torch.tensor(
    [[3.0, 4.0, 0.0], [0.0, 0.0, -2.0], [1.0, 0.0, 1.0], [-1.0, 0.0, -1.0]], dtype=torch.float64
)
PLANE = torch.eye(3, dtype=torch.float64)[:2]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_angles_to_a_coordinate_plane() -> None:
    assert angles_to_plane(ROWS, PLANE).tolist() == pytest.approx([0.0, 90.0, 45.0, 45.0])


def test_angles_between_rows() -> None:
    found = angles_between(ROWS)
    sharp = math.degrees(math.acos(3 / math.sqrt(50)))
    assert found[0].tolist() == pytest.approx([0.0, 90.0, sharp, 180.0 - sharp], abs=1e-5)
    assert found[2].tolist() == pytest.approx([sharp, 135.0, 0.0, 180.0], abs=1e-5)
    torch.testing.assert_close(found, found.T)


def test_angles_are_those_between_subspaces_whatever_the_lengths() -> None:
    rows, plane = normal(6, 20), torch.linalg.qr(normal(20, 2, seed=1))[0].T
    lengths = torch.arange(1, 7, dtype=torch.float64)[:, None]
    for found, row in zip(angles_to_plane(lengths * rows, plane), rows, strict=True):
        expected = subspace_angles(row.numpy()[:, None], plane.T.numpy())
        assert float(found) == pytest.approx(np.degrees(expected[0]))


def test_random_rows_lie_off_a_plane_as_their_dimension_says() -> None:
    n = 50
    found = angles_to_plane(normal(20_000, n), torch.eye(n, dtype=torch.float64)[:2])
    within = torch.deg2rad(found).cos().square()
    assert float(within.mean()) == pytest.approx(2 / n, abs=4 * float(within.std()) / 20_000**0.5)


def test_rows_are_rebuilt_from_all_their_coordinates() -> None:
    rows, basis = normal(3, 5), torch.linalg.qr(normal(5, 5, seed=1))[0].T
    torch.testing.assert_close(projected_rows(rows, basis) @ basis, rows)
    torch.testing.assert_close(projected_rows(rows, basis[:2]), rows @ basis[:2].T)


def test_a_row_of_zeros_has_no_angle() -> None:
    rows = torch.stack([ROWS[0], torch.zeros(3, dtype=torch.float64)])
    assert angles_to_plane(rows, PLANE).isnan().tolist() == [False, True]
    assert angles_between(rows).isnan().tolist() == [[False, True], [True, True]]
