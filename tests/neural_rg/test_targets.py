"""One contract for every target: its score, its symmetry, its precision, and its exact answer.

What is special to one target stands in a file of its own.
"""

import itertools
import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from strata.config import block_name, blocks_of, parse
from strata.neural_rg.ising_field import IsingField
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.scalar_field import ScalarField
from strata.neural_rg.solve import UNITS, Question, solve
from strata.neural_rg.target_settings import (
    IsingSettings,
    LatticeTarget,
    ScalarFieldSettings,
    TargetSettings,
    TwoGaussiansSettings,
    WaveSettings,
)
from strata.neural_rg.targets import TARGETS, Target, build_target

CPU = torch.device("cpu")
LATTICES = [
    {"L": length, "d": dimension, "boundary": boundary}
    for length, dimension, boundary in itertools.product((2, 3), (1, 2), ("periodic", "open"))
]
BLOCKS: dict[str, Any] = {block_name(block): block for block in blocks_of(TargetSettings)}
CASES: list[TargetSettings] = [
    *(block() for block in BLOCKS.values()),
    *(IsingSettings(T=2.0, **lattice) for lattice in LATTICES),
    *(ScalarFieldSettings(**lattice) for lattice in LATTICES),
    ScalarFieldSettings(L=5, d=1, kappa=-0.3, lam=0.4),
    ScalarFieldSettings(L=6, d=1, kappa=0.2, lam=0),
    WaveSettings(width=0.7),
    TwoGaussiansSettings(offset=0.0),
    TwoGaussiansSettings(offset=5.0),
]
TWO_VARIABLES: list[TargetSettings] = [
    *(settings for settings in CASES if settings.event_shape == (2,)),
    ScalarFieldSettings(L=2, d=1, kappa=0.4, lam=0.5),
    IsingSettings(L=2, d=1, T=0.9),
]

MOMENTS: dict[str, tuple[str, str, Callable[[Tensor], Tensor]]] = {
    "magnetization_squared": ("m^2", "m^2", lambda x: x.flatten(1).mean(1) ** 2),
    "radius_squared": ("r^2", "r^2", lambda x: x.square().sum(1)),
    "x1_squared": ("x1^2", "x_1^2", lambda x: x[:, 0] ** 2),
}
"""What an observable's name stands for: in text, in a figure, and in numbers."""

KINKED = {"ring2d": 1e-6, "ring5": 1e-4}
"""How exact a sum over a grid is where the density has kinks."""


def described(settings: TargetSettings) -> str:
    return "-".join(str(value) for value in settings.distribution.values())


every_case = pytest.mark.parametrize("settings", CASES, ids=described)


def target_of(settings: TargetSettings, dtype: torch.dtype = torch.float64) -> Target:
    return build_target(settings, dtype=dtype, device=CPU)


def random_fields(settings: TargetSettings, n: int = 8, size: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return size * torch.randn(n, *settings.event_shape, generator=generator, dtype=torch.float64)


# --- the registry -------------------------------------------------------------------------------


def test_every_target_has_settings_and_all_settings_have_a_target() -> None:
    assert set(TARGETS) == set(BLOCKS)
    for name, block in BLOCKS.items():
        assert block().name == name


@every_case
def test_what_the_settings_describe_is_a_target_of_their_shape(settings: TargetSettings) -> None:
    for dtype in (torch.float32, torch.float64):
        target = target_of(settings, dtype)
        assert isinstance(target, Target)
        assert target.dtype == dtype
        assert target.event_shape == settings.event_shape
        x = random_fields(settings, 5).to(dtype)
        for values in (target.log_density(x), target.observable(x), target.order_parameter(x)):
            assert values.shape == (5,)
            assert values.dtype == dtype
        assert target.score(x).shape == x.shape
        assert target.score(x).dtype == dtype


@every_case
def test_the_observable_is_one_that_the_exact_answer_names(settings: TargetSettings) -> None:
    assert UNITS[settings.observable] == "1"
    values, method = solve(settings)
    assert set(values) <= set(UNITS)
    assert {"log_partition_field", settings.observable} <= set(values)
    assert method
    symbol, formula, _ = MOMENTS[settings.observable]
    assert settings.symbol == f"<{symbol}>"
    assert settings.formula == f"$\\langle {formula} \\rangle$"


@every_case
def test_the_observable_is_what_its_name_says(settings: TargetSettings) -> None:
    """Of the Ising field, it is that of the spins: E[m^2 | x], and m = +-1 far out."""
    _, _, moment = MOMENTS[settings.observable]
    x = random_fields(settings)
    variables = x.sign() if settings.name == "ising" else x
    found = target_of(settings).observable(50 * variables if settings.name == "ising" else x)
    torch.testing.assert_close(found, moment(variables), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    "settings", [case for case in CASES if isinstance(case, LatticeTarget)], ids=described
)
def test_a_lattice_is_that_of_the_settings(settings: TargetSettings) -> None:
    target = target_of(settings)
    assert isinstance(settings, LatticeTarget)
    assert isinstance(target, IsingField | ScalarField)
    assert target.lattice == Lattice(settings.L, settings.d, settings.boundary)


@every_case
def test_a_question_is_the_distribution_and_nothing_else(settings: TargetSettings) -> None:
    """It can be asked again, and neither form of the temperature matters."""
    asked = parse(Question, {"target": json.loads(settings.solve_argument)}, "a test").target
    assert asked.distribution == settings.distribution
    assert asked.solve_argument == settings.solve_argument
    assert asked.exact_file == settings.exact_file
    assert re.fullmatch(r"results/exact/[\w.-]+\.h5", settings.exact_file)
    numbers = [value for value in settings.distribution.values() if not isinstance(value, str)]
    assert all(repr(number) in settings.exact_file for number in numbers)


def test_different_distributions_have_different_names() -> None:
    different = {described(settings): settings for settings in CASES + TWO_VARIABLES}.values()
    assert len({settings.solve_argument for settings in different}) == len(different)
    assert len({settings.exact_file for settings in different}) == len(different)
    assert len({settings.caption for settings in different}) == len(different)


def test_one_coupling_is_one_distribution() -> None:
    by_temperature, by_coupling = IsingSettings(T=2.5), IsingSettings(K=0.4)
    assert by_temperature != by_coupling
    assert by_temperature.distribution == by_coupling.distribution
    assert by_temperature.exact_file == by_coupling.exact_file


# --- one contract for every target --------------------------------------------------------------


@every_case
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_score_is_the_gradient_of_the_log_density(settings: TargetSettings, beta: float) -> None:
    target = target_of(settings)
    x = random_fields(settings).requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_density(x, beta).sum(), x)
    with torch.no_grad():
        score = target.score(x, beta)
    torch.testing.assert_close(score, gradient, atol=1e-11, rtol=1e-11)
    assert (gradient != 0).all()


@every_case
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_every_target_is_even(settings: TargetSettings, beta: float) -> None:
    target, x = target_of(settings), random_fields(settings)
    close = torch.testing.assert_close
    close(target.log_density(-x, beta), target.log_density(x, beta), atol=1e-11, rtol=1e-12)
    close(target.score(-x, beta), -target.score(x, beta), atol=1e-11, rtol=1e-12)
    close(target.observable(-x), target.observable(x), atol=1e-12, rtol=1e-12)
    close(target.order_parameter(-x), -target.order_parameter(x), atol=1e-12, rtol=1e-12)
    assert (target.order_parameter(x) != 0).all()
    assert (target.order_parameter(x.abs()) > 0).all()
    assert target.observable(x).unique().numel() == len(x)
    assert (target.observable(x) >= 0).all()


@every_case
@pytest.mark.parametrize("beta", [0.2, 0.7])
def test_the_annealing_factor_stands_where_the_settings_say(
    settings: TargetSettings, beta: float
) -> None:
    """In ln cosh(beta x) of the Ising field, and in front of the other log-densities."""
    target, x = target_of(settings), random_fields(settings)
    whole = target.log_density(x)
    torch.testing.assert_close(target.log_density(x, 1.0), whole, atol=0, rtol=0)
    torch.testing.assert_close(target.score(x, 1.0), target.score(x), atol=0, rtol=0)
    expected = beta * whole
    if settings.name == "ising":
        log_cosh = [field.cosh().log().flatten(1).sum(1) for field in (x, beta * x)]
        expected = whole - log_cosh[0] + log_cosh[1]
    torch.testing.assert_close(target.log_density(x, beta), expected, atol=1e-11, rtol=1e-12)


@every_case
@pytest.mark.parametrize("size", [1e-3, 1.0, 10.0])
def test_single_precision_is_double_precision_but_for_rounding(
    settings: TargetSettings, size: float
) -> None:
    single, double = target_of(settings, torch.float32), target_of(settings)
    x = random_fields(settings, 16, size).float()
    leaf, exact = x.clone().requires_grad_(), x.double()
    (gradient,) = torch.autograd.grad(single.log_density(leaf).sum(), leaf)
    found = {  # single, double, and the size of the terms that may cancel
        "log-density": (single.log_density(x), double.log_density(exact), 1.0),
        "score": (single.score(x), double.score(exact), size),
        "gradient": (gradient, double.score(exact), 20.0),
        "observable": (single.observable(x), double.observable(exact), size**2),
        "order parameter": (single.order_parameter(x), double.order_parameter(exact), size),
    }
    for name, (rounded, expected, terms) in found.items():
        error = (rounded.double() - expected).abs().max().item()
        assert error < 2e-5 * max(expected.abs().max().item(), terms), name


@every_case
def test_fields_far_out_overflow_nowhere(settings: TargetSettings) -> None:
    target = target_of(settings, torch.float32)
    x = random_fields(settings, 16, 3e3).float().requires_grad_()
    log_density = target.log_density(x)
    (gradient,) = torch.autograd.grad(log_density.sum(), x)
    assert (log_density < 0).all()
    for values in (log_density, gradient, target.score(x.detach()), target.observable(x)):
        assert torch.isfinite(values).all()


@every_case
def test_a_batch_of_another_shape_is_refused(settings: TargetSettings) -> None:
    target, x = target_of(settings), random_fields(settings)
    shape = re.escape(f"(batch, {', '.join(map(str, settings.event_shape))})")
    for wrong in (x[0], x[..., :-1], x.unsqueeze(1)):
        for method in (target.log_density, target.score):
            came = re.escape(str(tuple(wrong.shape)))
            with pytest.raises(ValueError, match=f"has shape {shape}; got {came}"):
                method(wrong)


@pytest.mark.parametrize("settings", TWO_VARIABLES, ids=described)
def test_the_exact_answer_is_the_integral_of_the_density(settings: TargetSettings) -> None:
    """ln Z and the mean of the observable, by sums over a grid in the plane of two variables."""
    target, step = target_of(settings), 0.05
    axis = step * torch.arange(-360, 361, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    log_density = target.log_density(grid)
    density = torch.exp(log_density - log_density.max())
    edge = density.reshape(len(axis), len(axis))[[0, -1]].max()
    assert edge.item() < 1e-12, "the grid should reach far enough"
    log_partition = density.sum().log() + log_density.max() + 2 * math.log(step)
    moment = (density * target.observable(grid)).sum() / density.sum()
    values, _ = solve(settings)
    precision = KINKED.get(settings.name, 1e-9)
    assert values["log_partition_field"] == pytest.approx(log_partition.item(), abs=precision)
    assert values[settings.observable] == pytest.approx(moment.item(), rel=precision)


def test_every_target_is_integrated() -> None:
    assert {settings.name for settings in TWO_VARIABLES} == set(TARGETS)
