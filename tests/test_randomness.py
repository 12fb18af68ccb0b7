"""Named streams: reproducible, independent of each other, and taken up where they stood."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from strata.randomness import Generators, derived_seed

CPU = torch.device("cpu")
N_DRAWS = 20_000


def draw(generators: Generators, name: str, n: int = 5) -> list[float]:
    return torch.randn(n, generator=generators[name]).tolist()


def test_same_seed_and_name_give_the_same_stream() -> None:
    assert draw(Generators(1, CPU), "data") == draw(Generators(1, CPU), "data")


def test_streams_of_other_seeds_and_names_differ() -> None:
    streams = [
        tuple(draw(Generators(seed, CPU), name)) for seed in (0, 1) for name in ("data", "init")
    ]
    assert len(set(streams)) == 4


def test_drawing_from_one_name_changes_no_other() -> None:
    alone, mixed = Generators(0, CPU), Generators(0, CPU)
    expected = draw(alone, "data", 6)
    first = draw(mixed, "data", 2)
    draw(mixed, "init", 100)
    mixed.on_cpu("data")
    assert [*first, *draw(mixed, "data", 4)] == expected


@pytest.mark.parametrize("others", [(0, "eval"), (1, "data")])
def test_streams_are_uncorrelated(others: tuple[int, str]) -> None:
    seed, name = others
    one = torch.randn(N_DRAWS, generator=Generators(0, CPU)["data"])
    other = torch.randn(N_DRAWS, generator=Generators(seed, CPU)[name])
    assert abs((one * other).mean().item()) < 4 / math.sqrt(N_DRAWS)


def test_on_cpu_starts_afresh_at_every_call() -> None:
    generators = Generators(0, CPU)
    first, second = (torch.randn(3, generator=generators.on_cpu("init")) for _ in range(2))
    assert torch.equal(first, second)
    assert draw(generators, "init", 3) == first.tolist()


def test_afresh_starts_on_the_device_at_every_call_and_disturbs_nothing() -> None:
    generators = Generators(0, CPU)
    expected = draw(Generators(0, CPU), "snapshot", 6)
    assert draw(generators, "snapshot", 2) == expected[:2]
    for _ in range(2):
        generator = generators.afresh("snapshot")
        assert generator.device == generators.device
        assert torch.randn(6, generator=generator).tolist() == expected
    generators.afresh("never drawn from")
    assert set(generators.state_dict()) == {"snapshot"}
    assert draw(generators, "snapshot", 4) == expected[2:]


def test_streams_go_on_where_they_stood() -> None:
    generators = Generators(0, CPU)
    draw(generators, "data")
    state = generators.state_dict()
    expected = draw(generators, "data"), draw(generators, "eval")
    for resumed in (generators, Generators(0, CPU)):
        draw(resumed, "eval", 3)
        resumed.load_state_dict(state)
        assert (draw(resumed, "data"), draw(resumed, "eval")) == expected


def test_who_holds_a_generator_goes_on_from_the_restored_state() -> None:
    generators = Generators(0, CPU)
    data, late = generators["data"], generators["late"]
    state = {"data": generators.state_dict()["data"]}
    expected = draw(generators, "data"), draw(generators, "late")
    generators.load_state_dict(state)
    held = tuple(torch.randn(5, generator=generator).tolist() for generator in (data, late))
    assert held == expected


@given(seed=st.integers(0, 2**64), name=st.text(max_size=8))
def test_derived_seed_fits_torch(seed: int, name: str) -> None:
    derived = derived_seed(seed, name)
    assert 0 <= derived < 2**63
    assert derived not in (derived_seed(seed + 1, name), derived_seed(seed, f"{name}+"))
    torch.Generator().manual_seed(derived)
