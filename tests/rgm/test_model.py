"""The network: passes up and down against numpy, shapes against changed specifications."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor
from torch.distributions import Categorical, MultivariateNormal

from strata.rgm.config import GNN_FILES
from strata.rgm.inputs import matrix_shapes
from strata.rgm.model import HierarchicalModel, prediction_errors
from strata.rgm.render import initial_matrices
from strata.rgm.specification import Level, Normalization, Specification, read_specification

SHIPPED = [Path(__file__).parents[2] / name for name in GNN_FILES]
RHO = 0.9
PIXELS, STATES, CATEGORIES = 36, (12, 6, 4), (5, 4, 3)
ACTIVATIONS = ("silu", "tanh", "identity")
NUMPY = {"silu": lambda v: v * special.expit(v), "tanh": np.tanh, "identity": lambda v: v}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def specification() -> Specification:
    """The shipped model in miniature, with another activation at every level."""
    sizes = (PIXELS, *STATES)
    levels = tuple(
        Level(i, sizes[i], sizes[i + 1], CATEGORIES[i], ACTIVATIONS[i]) for i in range(3)
    )
    return replace(
        read_specification(SHIPPED), levels=levels, image_shape=(6, 6), n_classes=CATEGORIES[-1]
    )


def random_matrices(specified: Specification, seed: int = 0) -> dict[str, Tensor]:
    draws = generator(seed)
    shapes = matrix_shapes(specified).items()
    return {
        name: torch.randn(shape, generator=draws, dtype=torch.float64).exp()
        if name.startswith("pi")
        else torch.randn(shape, generator=draws, dtype=torch.float64)
        for name, shape in shapes
    }


def images(n: int = 7, seed: int = 1) -> Tensor:
    return torch.rand(n, PIXELS, generator=generator(seed), dtype=torch.float64)


@pytest.fixture
def matrices() -> dict[str, Tensor]:
    return random_matrices(specification())


@pytest.fixture
def model(matrices: dict[str, Tensor]) -> HierarchicalModel:
    return HierarchicalModel(specification(), matrices).double().eval().requires_grad_(False)


def couplings(D: Tensor) -> np.ndarray:
    """C of a lateral matrix by its definition."""
    S = (D.numpy() + D.numpy().T) / 2
    np.fill_diagonal(S, 0)
    return np.eye(len(S)) + RHO * S / max(RHO, np.linalg.norm(S, 2))


def upwards(matrices: Mapping[str, Tensor], x: Tensor) -> list[np.ndarray]:
    """The amortised pass, image by image."""
    states = []
    signal = x.numpy()
    for i, activation in enumerate(ACTIVATIONS):
        A, a = (matrices[f"{letter}_level{i}"].numpy() for letter in "Aa")
        C = couplings(matrices[f"D_level{i}"])
        signal = np.stack([NUMPY[activation](C @ (A @ s + a)) for s in signal])
        states.append(signal)
    return states


def downwards(matrices: Mapping[str, Tensor], level: int, state: np.ndarray) -> np.ndarray:
    """What the states of a level predict of the level below, image by image."""
    B, b = (matrices[f"{letter}_level{level}"].numpy() for letter in "Bb")
    g = special.expit if level == 0 else NUMPY[ACTIVATIONS[level - 1]]
    return np.stack([g(B @ s + b) for s in state])


def test_the_pass_upwards_is_its_formula(
    model: HierarchicalModel, matrices: dict[str, Tensor]
) -> None:
    x = images()
    for state, expected in zip(model.recognize(x), upwards(matrices, x), strict=True):
        np.testing.assert_allclose(state.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_the_pass_downwards_is_its_formula(
    model: HierarchicalModel, matrices: dict[str, Tensor]
) -> None:
    for level, n in enumerate(STATES):
        state = torch.randn(5, n, generator=generator(), dtype=torch.float64)
        expected = [state.numpy()]
        for below in range(level, -1, -1):
            expected.append(downwards(matrices, below, expected[-1]))
        found = model.descend(level, state)
        assert len(found) == level + 1
        for prediction, wanted in zip(found, expected[1:], strict=True):
            np.testing.assert_allclose(prediction.numpy(), wanted, rtol=1e-10, atol=1e-12)
        assert torch.equal(model.reconstruct(level, state), found[-1])
        assert torch.equal(model.predict(level, state), found[0])


def test_errors_are_what_predictions_miss(
    model: HierarchicalModel, matrices: dict[str, Tensor]
) -> None:
    x = images()
    states = [torch.randn(len(x), n, generator=generator(), dtype=torch.float64) for n in STATES]
    targets = [x, *states]
    for level, error in enumerate(prediction_errors(model, x, states)):
        expected = targets[level].numpy() - downwards(matrices, level, states[level].numpy())
        np.testing.assert_allclose(error.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_lateral_couplings_are_symmetric_and_positive_definite(
    model: HierarchicalModel, matrices: dict[str, Tensor]
) -> None:
    for level in range(3):
        C = model.lateral(level).numpy()
        np.testing.assert_allclose(C, couplings(matrices[f"D_level{level}"]), atol=1e-12)
        eigenvalues = np.linalg.eigvalsh(C)
        assert eigenvalues[0] >= 1 - RHO - 1e-12
        assert eigenvalues[-1] <= 1 + RHO + 1e-12


def test_class_logits_are_the_posterior_of_gaussians_with_one_precision(
    model: HierarchicalModel,
) -> None:
    draws = generator(5)
    model.class_log_precision.copy_(torch.randn(STATES[-1], generator=draws))
    model.class_log_prior.copy_(torch.randn(CATEGORIES[-1], generator=draws))
    top = torch.randn(6, STATES[-1], generator=draws, dtype=torch.float64)
    Lambda = torch.diag(model.class_log_precision.exp())
    gaussians = MultivariateNormal(model.prototypes.T, precision_matrix=Lambda)
    joint = gaussians.log_prob(top.unsqueeze(1)) + Categorical(logits=model.class_log_prior).logits
    found = torch.softmax(model.class_logits(top), 1)
    torch.testing.assert_close(found, torch.softmax(joint, 1), rtol=1e-10, atol=1e-12)


def test_differences_of_class_logits_are_linear_in_the_states(model: HierarchicalModel) -> None:
    one, other = torch.randn(2, 1, STATES[-1], generator=generator(), dtype=torch.float64)
    logits = model.class_logits(torch.cat([one, (one + other) / 2, other]))
    log_odds = logits - logits[:, :1]
    torch.testing.assert_close(log_odds[1], (log_odds[0] + log_odds[2]) / 2)


def test_the_matrices_are_copied_and_precisions_are_not_learned_by_gradient(
    matrices: dict[str, Tensor],
) -> None:
    network = HierarchicalModel(specification(), matrices)
    for level in range(3):
        for letter in "ABDab":
            parameter = getattr(network, letter)[level]
            assert torch.equal(parameter, matrices[f"{letter}_level{level}"])
            assert parameter.data_ptr() != matrices[f"{letter}_level{level}"].data_ptr()
            assert parameter.requires_grad
        assert torch.equal(network.precisions[level], matrices[f"pi_level{level}"])
        assert not network.precisions[level].requires_grad
    assert torch.equal(network.prototypes, matrices["M_level2"])
    assert not any("precision_level" in name for name, _ in network.named_parameters())
    assert {"precision_level0", "precision_level1", "precision_level2"} <= set(network.state_dict())


def test_matrices_are_normalized_as_specified(matrices: dict[str, Tensor]) -> None:
    specified = specification()
    row, spectral = Normalization("row"), Normalization("spectral")
    modes = replace(specified.normalization, recognition=row, generation=spectral)
    network = HierarchicalModel(replace(specified, normalization=modes), matrices)
    network.requires_grad_(False)
    for level in range(3):
        rows = torch.linalg.vector_norm(network.recognition(level), dim=1)
        torch.testing.assert_close(rows, torch.ones_like(rows))
        assert float(torch.linalg.matrix_norm(network.generation(level), 2)) == pytest.approx(1.0)


@pytest.mark.parametrize("mode", ["column", "spectral"])
def test_prototypes_are_normalized_as_specified(mode: str, matrices: dict[str, Tensor]) -> None:
    """The class that a state is given to is that of the nearest normalized prototype."""
    specified = specification()
    modes = replace(specified.normalization, factor=Normalization(mode))
    network = HierarchicalModel(replace(specified, normalization=modes), matrices).double()
    network.requires_grad_(False)
    M = matrices["M_level2"].numpy()
    M = M / np.linalg.norm(M, axis=0) if mode == "column" else M / np.linalg.norm(M, 2)
    top = torch.randn(6, STATES[-1], generator=generator(), dtype=torch.float64)
    distance = top.numpy()[:, :, None] - M  # image, state, category
    expected = special.log_softmax(-0.5 * (distance**2).sum(1), axis=1)
    found = torch.log_softmax(network.class_logits(top), 1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_the_lateral_bound_is_that_of_the_specification(matrices: dict[str, Tensor]) -> None:
    specified = specification()
    rule = replace(specified.message_passing, lateral_bound=0.3)
    network = HierarchicalModel(replace(specified, message_passing=rule), matrices).double().eval()
    network.requires_grad_(False)
    norms = [
        float(torch.linalg.matrix_norm(network.lateral(i) - torch.eye(n), 2))
        for i, n in enumerate(STATES)
    ]
    assert norms == pytest.approx([0.3, 0.3, 0.3])


# --- mutations of the shipped specification -----------------------------------------------------

SHIPPED_SIZES = {
    "pixels": 784,
    **{f"n_state{i}": n for i, n in enumerate((256, 64, 16))},
    **{f"n_factor{i}": n for i, n in enumerate((64, 32, 10))},
}
MUTATIONS: dict[str, tuple[dict[str, int], dict[str, int]]] = {  # what changes in file and network
    "state0": ({"n_state0": 130}, {"n_state0": 130}),
    "state1": ({"n_state1": 48}, {"n_state1": 48}),
    "state2": ({"n_state2": 11}, {"n_state2": 11}),
    "factor0": ({"n_factor0": 7}, {"n_factor0": 7}),
    "factor1": ({"n_factor1": 9}, {"n_factor1": 9}),
    "classes": ({"n_factor2": 6, "num_classes": 6}, {"n_factor2": 6}),
    "height": ({"image_height": 10, "n_input": 280}, {"pixels": 280}),
    "width": ({"image_width": 12, "n_input": 336}, {"pixels": 336}),
}


def shapes_of(network: HierarchicalModel) -> dict[str, tuple[int, ...]]:
    shapes = {
        f"{letter}_level{i}": tuple(getattr(network, letter)[i].shape)
        for letter in "ABDab"
        for i in range(3)
    }
    shapes |= {f"pi_level{i}": tuple(pi.shape) for i, pi in enumerate(network.precisions)}
    return {**shapes, "M_level2": tuple(network.prototypes.shape)}


def expected_shapes(sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    units = [sizes["pixels"], *(sizes[f"n_state{i}"] for i in range(3))]
    shapes: dict[str, tuple[int, ...]] = {"M_level2": (units[3], sizes["n_factor2"])}
    for i in range(3):
        below, own = units[i], units[i + 1]
        shapes[f"A_level{i}"] = (own, below)
        shapes[f"B_level{i}"] = (below, own)
        shapes[f"D_level{i}"] = (own, own)
        shapes[f"a_level{i}"] = (own,)
        shapes[f"b_level{i}"] = shapes[f"pi_level{i}"] = (below,)
    return shapes


def test_every_dimension_of_the_shipped_file_is_mutated() -> None:
    text = SHIPPED[-1].read_text()
    sized = set(re.findall(r"^(n_\w+|image_\w+|num_classes): ", text, flags=re.MULTILINE))
    assert sized == {key for changes, _ in MUTATIONS.values() for key in changes}


@pytest.mark.parametrize("case", MUTATIONS)
def test_a_changed_dimension_changes_the_network(case: str, tmp_path: Path) -> None:
    changes, changed_sizes = MUTATIONS[case]
    text = SHIPPED[-1].read_text()
    for key, value in changes.items():
        text, n = re.subn(rf"^{key}: \d+", f"{key}: {value}", text, flags=re.MULTILINE)
        assert n == 1
    (tmp_path / "changed.gnn").write_text(text)
    specified = read_specification([*SHIPPED[:-1], tmp_path / "changed.gnn"])
    n_pixels = specified.levels[0].n_input
    x = torch.rand(3, n_pixels, generator=generator())
    matrices = initial_matrices(specified, x, generator())
    network = HierarchicalModel(specified, matrices)
    sizes = {**SHIPPED_SIZES, **changed_sizes}
    assert shapes_of(network) == expected_shapes(sizes)
    assert matrices["M_level0"].shape == (sizes["n_state0"], sizes["n_factor0"])
    assert matrices["M_level1"].shape == (sizes["n_state1"], sizes["n_factor1"])
    states = network.recognize(x)
    assert [s.shape[1] for s in states] == [sizes[f"n_state{i}"] for i in range(3)]
    assert network.reconstruct(2, states[2]).shape == x.shape
    assert network.class_logits(states[2]).shape == (3, sizes["n_factor2"])
