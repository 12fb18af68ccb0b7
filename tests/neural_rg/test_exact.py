"""Exact methods against each other, sums over states, and published or independent numbers."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import dblquad

from strata.artifacts import open_h5
from strata.errors import UserError
from strata.neural_rg import solve
from strata.neural_rg.chain import (
    energy_per_site_chain,
    log_partition_chain,
    magnetization_squared_chain,
)
from strata.neural_rg.exact import (
    density_of_states,
    enumerate_states,
    exact_values,
    kernel_eigenvalues,
    kernel_offset,
    log_partition,
    log_partition_enumerated,
    log_partition_field,
    log_partition_offset,
    read_exact,
)
from strata.neural_rg.kaufman import energy_per_site_kaufman, log_partition_kaufman
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.target_settings import (
    CRITICAL_TEMPERATURE,
    FiveRingsSettings,
    IsingSettings,
    RingSettings,
    ScalarFieldSettings,
    TargetSettings,
    TwoGaussiansSettings,
    WaveSettings,
)
from strata.neural_rg.transfer_matrix import transfer_matrix_values

CRITICAL_COUPLING = 1 / CRITICAL_TEMPERATURE
COUPLINGS = st.floats(0.02, 2.0)


def sum_over_states(lattice: Lattice, coupling: float) -> tuple[float, float, float]:
    """Return ln Z, <m^2> and <H>/N from their definitions, one spin state after another."""
    adjacency = lattice.adjacency()
    states = [np.array(spins) for spins in itertools.product((-1, 1), repeat=lattice.n_sites)]
    energies = np.array([-spins @ adjacency @ spins / 2 for spins in states])
    squares = np.array([spins.mean() ** 2 for spins in states])
    weights = np.exp(-coupling * energies)
    partition = weights.sum()
    return (
        math.log(partition),
        float(weights @ squares / partition),
        float(weights @ energies / partition / lattice.n_sites),
    )


def test_critical_temperature() -> None:
    assert pytest.approx(2.269185314213022, abs=1e-15) == CRITICAL_TEMPERATURE
    assert math.sinh(2 / CRITICAL_TEMPERATURE) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("boundary", ["periodic", "open"])
@pytest.mark.parametrize(("length", "dimension"), [(2, 1), (3, 1), (8, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("coupling", [0.1, CRITICAL_COUPLING, 1.3])
def test_enumeration_is_the_sum_over_states(
    length: int, dimension: int, boundary: str, coupling: float
) -> None:
    lattice = Lattice(length, dimension, boundary)
    assert enumerate_states(lattice, coupling) == pytest.approx(
        sum_over_states(lattice, coupling), abs=1e-12
    )


def test_density_of_states_counts_every_state() -> None:
    counts = density_of_states(Lattice(18, 1))
    assert counts.sum() == 2**18
    np.testing.assert_array_equal(counts.sum(axis=0), [math.comb(18, down) for down in range(19)])


@given(
    length=st.integers(2, 12), boundary=st.sampled_from(["periodic", "open"]), coupling=COUPLINGS
)
def test_chain_closed_forms_equal_enumeration(length: int, boundary: str, coupling: float) -> None:
    lattice = Lattice(length, 1, boundary)
    closed_forms = (
        log_partition_chain(lattice, coupling),
        magnetization_squared_chain(lattice, coupling),
        energy_per_site_chain(lattice, coupling),
    )
    assert closed_forms == pytest.approx(enumerate_states(lattice, coupling), abs=1e-12)


@given(
    lattice=st.sampled_from([Lattice(3), Lattice(4), Lattice(3, 2, "open"), Lattice(4, 2, "open")]),
    coupling=COUPLINGS,
)
def test_transfer_matrix_equals_enumeration(lattice: Lattice, coupling: float) -> None:
    assert transfer_matrix_values(lattice, coupling) == pytest.approx(
        enumerate_states(lattice, coupling), abs=1e-11
    )


def test_transfer_matrix_of_the_smallest_open_square() -> None:
    lattice = Lattice(2, 2, "open")
    assert transfer_matrix_values(lattice, 0.7) == pytest.approx(
        enumerate_states(lattice, 0.7), abs=1e-13
    )


@given(length=st.integers(3, 8), coupling=COUPLINGS)
def test_kaufman_equals_transfer_matrix(length: int, coupling: float) -> None:
    lattice = Lattice(length)
    log_z, _, energy = transfer_matrix_values(lattice, coupling)
    assert log_partition_kaufman(lattice, coupling) == pytest.approx(log_z, rel=1e-13, abs=1e-12)
    assert energy_per_site_kaufman(lattice, coupling) == pytest.approx(energy, abs=1e-11)


@pytest.mark.parametrize("length", [3, 4, 9, 10])
@pytest.mark.parametrize("offset", [-1e-3, -1e-9, -1e-16, 0.0, 1e-16, 1e-9, 1e-3])
def test_kaufman_at_and_next_to_the_critical_point(length: int, offset: float) -> None:
    lattice = Lattice(length)
    coupling = CRITICAL_COUPLING + offset
    log_z, _, energy = transfer_matrix_values(lattice, coupling)
    assert log_partition_kaufman(lattice, coupling) == pytest.approx(log_z, rel=1e-13)
    assert energy_per_site_kaufman(lattice, coupling) == pytest.approx(energy, abs=1e-12)


@pytest.mark.parametrize("length", [3, 32, 129])
def test_limits_of_low_and_high_temperature(length: int) -> None:
    lattice = Lattice(length)
    n_sites = length**2
    assert log_partition_kaufman(lattice, 20.0) == pytest.approx(math.log(2) + 40 * n_sites)
    assert energy_per_site_kaufman(lattice, 20.0) == pytest.approx(-2)
    assert log_partition_kaufman(lattice, 1e-5) == pytest.approx(n_sites * math.log(2))
    assert energy_per_site_kaufman(lattice, 1e-3) == pytest.approx(-2e-3, rel=2e-2)


def test_large_lattice_approaches_onsager() -> None:
    energy = energy_per_site_kaufman(Lattice(1024), CRITICAL_COUPLING)
    assert energy == pytest.approx(-math.sqrt(2), abs=1e-3)


TABLE_AT_TC = [  # length, ln Z, C, <m^2>
    (4, 15.521915458755, -21.854816231189, 0.7613589085687),
    (6, 34.111541054986, -49.702188947383, 0.6933165911352),
    (8, 60.141780789069, -88.513235491922, 0.6469115749942),
    (10, 93.610300510222, None, 0.6125676827486),
    (12, 134.516630602558, None, 0.5856754370189),
    (16, 238.642256635133, -354.233483222450, None),
    (32, 952.648079548543, -1416.939011576708, None),
    (64, 3808.672283419809, -5667.756049896770, None),
]


@pytest.mark.parametrize(("length", "log_z", "offset", "squared"), TABLE_AT_TC)
def test_table_at_the_critical_temperature(
    length: int, log_z: float, offset: float | None, squared: float | None
) -> None:
    lattice = Lattice(length)
    assert log_partition(lattice, CRITICAL_COUPLING) == pytest.approx(log_z, abs=2e-11, rel=3e-15)
    if offset is not None:
        assert log_partition_offset(lattice, CRITICAL_COUPLING) == pytest.approx(offset, abs=2e-11)
    if squared is not None:
        exact = exact_values(lattice, CRITICAL_COUPLING)
        assert exact.log_partition == pytest.approx(log_z, abs=1e-11)
        assert exact.magnetization_squared == pytest.approx(squared, abs=1e-12)


@pytest.mark.parametrize(
    ("length", "temperature", "minus_log_z"),
    [
        (4, CRITICAL_TEMPERATURE, -37.376731689944),
        (6, CRITICAL_TEMPERATURE, -83.813730002370),
        (8, CRITICAL_TEMPERATURE, -148.655016280991),
        (16, CRITICAL_TEMPERATURE, -592.875739857583),
        (32, CRITICAL_TEMPERATURE, -2369.587091125250),
        (64, CRITICAL_TEMPERATURE, -9476.428333316579),
        (10, 2.0, -259.2724722444),
        (10, 2.5, -214.0044477321),
        (16, 2.0, -662.7150038274),
        (16, 2.5, -547.3572235130),
    ],
)
def test_table_of_the_field(length: int, temperature: float, minus_log_z: float) -> None:
    log_z = log_partition_field(Lattice(length), 1 / temperature)
    assert -log_z == pytest.approx(minus_log_z, abs=1e-9)


@pytest.mark.parametrize(
    ("lattice", "temperature", "squared"),
    [
        (Lattice(4), 2.5, 0.654825757),
        (Lattice(8), 2.5, 0.432099079),
        (Lattice(12), 2.5, 0.293243095),
        pytest.param(Lattice(16), 2.5, 0.202347705, marks=pytest.mark.slow),
        (Lattice(4), 2.269, 0.7614417266),
        (Lattice(4, 2, "open"), CRITICAL_TEMPERATURE, 0.3712887074),
        (Lattice(4, 2, "open"), 2.5, 0.3095908244),
        (Lattice(2), CRITICAL_TEMPERATURE, 0.5690355937),
        (Lattice(2, 2, "open"), CRITICAL_TEMPERATURE, 0.5690355937),
        (Lattice(8, 1), 2.5, 0.2779510761),
        (Lattice(16, 1), 2.5, 0.1390962556),
    ],
    ids=str,
)
def test_table_of_magnetizations(lattice: Lattice, temperature: float, squared: float) -> None:
    exact = exact_values(lattice, 1 / temperature)
    assert exact.magnetization_squared == pytest.approx(squared, abs=6e-10)


@pytest.mark.slow
def test_largest_transfer_matrix() -> None:
    exact = exact_values(Lattice(16), CRITICAL_COUPLING)
    assert exact.method == "transfer matrix"
    assert exact.log_partition == pytest.approx(238.642256635133, abs=1e-11)
    assert exact.magnetization_squared == pytest.approx(0.5454172043973, abs=1e-12)
    energy = energy_per_site_kaufman(Lattice(16), CRITICAL_COUPLING)
    assert exact.energy_per_site == pytest.approx(energy, abs=1e-12)


def test_open_square_beyond_enumeration_obeys_bounds() -> None:
    """Cutting bonds of the torus, and cutting the square into 4 x 4 blocks, lower ln Z."""
    coupling = CRITICAL_COUPLING
    whole = log_partition(Lattice(8, 2, "open"), coupling)
    blocks = 4 * log_partition(Lattice(4, 2, "open"), coupling)
    assert blocks < whole < log_partition(Lattice(8), coupling)


@pytest.mark.parametrize("lattice", [Lattice(6, 2, "open"), Lattice(12, 2, "open")], ids=str)
def test_open_energy_is_the_derivative_of_log_partition(lattice: Lattice) -> None:
    step = 1e-4
    above, below = (log_partition(lattice, 0.5 + side * step) for side in (1, -1))
    energy = exact_values(lattice, 0.5).energy_per_site
    assert energy == pytest.approx(-(above - below) / (2 * step) / lattice.n_sites, abs=1e-6)


@pytest.mark.parametrize(
    "lattice", [Lattice(4), Lattice(5), Lattice(5, 2, "open"), Lattice(7, 1), Lattice(2)], ids=str
)
def test_offset_equals_the_dense_determinant(lattice: Lattice) -> None:
    coupling, n = 0.6, lattice.n_sites
    alpha = kernel_offset(lattice, coupling)
    dense = coupling * lattice.adjacency() + alpha * np.eye(n)
    assert np.linalg.eigvalsh(dense)[0] == pytest.approx(0.1, abs=1e-12)
    assert kernel_eigenvalues(lattice, coupling).min() == pytest.approx(0.1, abs=1e-12)
    expected = n / 2 * (math.log(4) - alpha - math.log(2 * math.pi))
    expected -= np.linalg.slogdet(dense)[1] / 2
    assert log_partition_offset(lattice, coupling) == pytest.approx(expected, abs=1e-11)


def test_offset_at_the_critical_point() -> None:
    assert kernel_offset(Lattice(8), CRITICAL_COUPLING) == pytest.approx(1.862747174, abs=1e-9)


def test_field_partition_function_of_two_sites_is_its_integral() -> None:
    lattice, coupling = Lattice(2, 1), 0.8
    kernel = coupling * lattice.adjacency() + kernel_offset(lattice, coupling) * np.eye(2)
    inverse = np.linalg.inv(kernel)

    def density(x: float, y: float) -> float:
        field = np.array([x, y])
        return float(np.exp(-field @ inverse @ field / 2) * np.cosh(field).prod())

    integral, _ = dblquad(density, -16, 16, -16, 16, epsabs=1e-9, epsrel=1e-9)
    assert math.log(integral) == pytest.approx(log_partition_field(lattice, coupling), abs=1e-8)


@pytest.mark.parametrize(
    ("lattice", "method"),
    [
        (Lattice(1000, 1), "closed form"),
        (Lattice(2), "enumeration"),
        (Lattice(4, 2, "open"), "enumeration"),
        (Lattice(5), "transfer matrix"),
        (Lattice(9, 2, "open"), "transfer matrix"),
        (Lattice(17), "Kaufman's formula"),
    ],
    ids=str,
)
def test_method_follows_the_lattice(lattice: Lattice, method: str) -> None:
    exact = exact_values(lattice, 0.4)
    assert exact.method == method
    assert (exact.magnetization_squared is None) == (method == "Kaufman's formula")


def test_what_is_out_of_reach_is_said() -> None:
    with pytest.raises(ValueError, match=r"open square lattice longer than 16; got 17"):
        exact_values(Lattice(17, 2, "open"), 0.4)
    with pytest.raises(ValueError, match=r"at most 20 sites; got 25"):
        log_partition_enumerated(Lattice(5), 0.4)
    with pytest.raises(ValueError, match="length of at least 3"):
        log_partition_kaufman(Lattice(2), 0.4)
    with pytest.raises(ValueError, match=r"periodic square lattice; got dimension 2 with open"):
        energy_per_site_kaufman(Lattice(4, 2, "open"), 0.4)
    with pytest.raises(ValueError, match=r"length at most 16; got dimension 2 and length 17"):
        transfer_matrix_values(Lattice(17), 0.4)
    with pytest.raises(ValueError, match="merged bonds"):
        transfer_matrix_values(Lattice(2), 0.4)
    with pytest.raises(ValueError, match="dimension 1; got 2"):
        log_partition_chain(Lattice(4), 0.4)
    with pytest.raises(ValueError, match="must lie in"):
        exact_values(Lattice(4), -0.4)


# --- the stage ----------------------------------------------------------------------------------


def solved(folder: Path, question: str) -> Path:
    """Run the stage on what is asked, and return its file."""
    solve.main(["--target", question, "--exact", str(folder / "exact.h5")])
    return folder / "exact.h5"


def test_stage_writes_values_with_units(tmp_path: Path) -> None:
    settings = IsingSettings(L=8)
    with open_h5(solved(tmp_path, settings.solve_argument)) as file:
        assert -file["log_partition_field"][()] == pytest.approx(-148.655016280991, abs=1e-9)
        assert file["magnetization_squared"][()] == pytest.approx(0.6469115749942, abs=1e-12)
        expected = exact_values(Lattice(8), CRITICAL_COUPLING)
        assert file["energy_per_site"][()] == expected.energy_per_site
        assert file["log_partition"][()] == expected.log_partition
        difference = file["log_partition"][()] - file["log_partition_field"][()]
        assert difference == pytest.approx(file["log_partition_offset"][()], abs=1e-11)
        ising = solve.UNITS.keys() - {"radius_squared", "x1_squared"}
        units = {name: data.attrs["unit"] for name, data in file.items()}
        assert units == {name: solve.UNITS[name] for name in ising}
        assert file.attrs["method"] == "transfer matrix"
        assert file.attrs["settings"] == settings.solve_argument


@pytest.mark.parametrize(("settings", "method"), [
    (RingSettings(), "quadrature"),
    (FiveRingsSettings(), "quadrature"),
    (WaveSettings(width=1.5), "quadrature"),
    (TwoGaussiansSettings(offset=1.0), "quadrature"),
    (ScalarFieldSettings(L=3, boundary="open"), "transfer matrix on Gauss nodes"),
], ids=lambda value: getattr(value, "name", value))  # fmt: skip
def test_stage_solves_every_other_target(
    settings: TargetSettings, method: str, tmp_path: Path
) -> None:
    path = solved(tmp_path, settings.solve_argument)
    values = read_exact(path, settings)
    assert {name: float(value) for name, value in values.items()} == solve.solve(settings)[0]
    assert set(values) == {"log_partition_field", settings.observable}
    with open_h5(path) as file:
        assert {name: data.attrs["unit"] for name, data in file.items()} == {
            "log_partition_field": "nats",
            settings.observable: "1",
        }
        assert file.attrs["method"] == method


def test_parameters_reach_the_answer() -> None:
    """In closed form: the second moment of an envelope, and of two Gaussians."""
    assert solve.solve(WaveSettings(width=1.5))[0]["x1_squared"] == pytest.approx(1.5**2)
    assert solve.solve(TwoGaussiansSettings(offset=1.0))[0]["x1_squared"] == pytest.approx(1.25)
    free = {"L": 3, "d": 1, "kappa": 0.0, "lam": 0.0}
    values = solve.solve(ScalarFieldSettings(**free))[0]  # exp(-phi^2) at every site
    assert values["log_partition_field"] == pytest.approx(1.5 * math.log(math.pi))
    assert values["magnetization_squared"] == pytest.approx(0.5 / 3)


def test_a_lattice_beyond_the_exact_observable_is_solved_without_it(tmp_path: Path) -> None:
    settings = IsingSettings(L=32)
    values = read_exact(solved(tmp_path, settings.solve_argument), settings)
    assert "magnetization_squared" not in values
    assert -values["log_partition_field"] == pytest.approx(-2369.587091125250, abs=1e-9)


def test_what_is_left_out_of_a_question_has_its_default(tmp_path: Path) -> None:
    path = solved(tmp_path, '{"L": 4}')
    assert read_exact(path, IsingSettings(L=4, K=CRITICAL_COUPLING))


@pytest.mark.parametrize(("question", "words"), [
    ('{"L": 1, "K": 0.4}', "target.L: expected greater than or equal to 2; got 1"),
    ('{"L": 4, "d": 3, "K": 0.4}', "target.d: expected 1 or 2; got 3"),
    ('{"L": 4, "K": -1.0}', "target.K: expected greater than 0; got -1"),
    ('{"L": 4, "length": 4}', "target.length is no setting"),
    ('{"name": "ring2d", "L": 4}', "target.L is no setting of ring2d"),
    ('{"name": "potts"}', "target.name: expected one of ising, phi4, ring2d"),
    ('{"L": 17, "boundary": "open", "K": 0.4}', "open square lattice longer than 16; got L = 17"),
    ('{"name": "phi4", "L": 5}', "solved exactly up to L = 4"),
    ('{"name": "phi4", "lam": 0.0, "kappa": 0.3}', "got kappa = 0.3"),
    ("L = 4", "--target: expected JSON"),
    ("", "--target: expected JSON"),
    ("[4]", "target: expected"),
    ("4", "target: expected"),
])  # fmt: skip
def test_stage_refuses_what_is_no_distribution(tmp_path: Path, question: str, words: str) -> None:
    with pytest.raises(UserError) as refusal:
        solved(tmp_path, question)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_a_distribution_that_no_method_reaches_is_one_sentence(tmp_path: Path) -> None:
    """Wells so deep and far apart that the quadrature nodes do not suffice."""
    deep = ScalarFieldSettings(L=4, d=1, kappa=2.0, lam=0.05)
    with pytest.raises(UserError, match="does not converge") as refusal:
        solved(tmp_path, deep.solve_argument)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("asked", "needed"), [
    (IsingSettings(L=4, T=2.0), IsingSettings(L=4, T=3.0)),
    (IsingSettings(L=4, T=2.0), IsingSettings(L=4, T=2.0, boundary="open")),
    (WaveSettings(), WaveSettings(width=1.0)),
    (RingSettings(), FiveRingsSettings()),
])  # fmt: skip
def test_the_answer_to_another_question_is_refused(
    asked: TargetSettings, needed: TargetSettings, tmp_path: Path
) -> None:
    path = solved(tmp_path, asked.solve_argument)
    assert read_exact(path, asked)
    with pytest.raises(UserError) as refusal:
        read_exact(path, needed)
    assert str(refusal.value) == (
        f"{path} is the exact answer for {asked.solve_argument}; the settings have "
        f"{needed.solve_argument}. Name the file that belongs to them."
    )
