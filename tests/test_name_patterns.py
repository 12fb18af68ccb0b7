"""Patterns of names, against a list of the names itself."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.name_patterns import alternatives

NAMES = st.text("ab~_./^]\\-|1", max_size=5)


@given(st.sets(NAMES, max_size=12), st.lists(NAMES, max_size=12))
def test_what_matches_is_what_stands_in_the_list(names: set[str], others: list[str]) -> None:
    pattern = re.compile(alternatives(names))
    for text in (*names, *others):
        assert (pattern.fullmatch(text) is not None) == (text in names)


def test_the_order_of_the_names_does_not_matter() -> None:
    assert alternatives(["b", "ab", "a"]) == alternatives(["a", "b", "ab"])


def test_the_longest_name_is_taken_within_a_text() -> None:
    found = re.match(f"(?P<run>{alternatives(['a', 'a/b', 'ab'])})", "a/b/model.pt")
    assert found is not None
    assert found["run"] == "a/b"


@pytest.mark.parametrize("letter", string.punctuation + " ")
def test_no_letter_of_a_name_is_an_operator(letter: str) -> None:
    pattern = alternatives([f"x{other}y" for other in ("a", letter)])
    assert re.fullmatch(pattern, f"x{letter}y")
    assert not re.fullmatch(pattern, "xby")


def test_the_pattern_of_a_grid_is_as_long_as_its_values_not_as_its_points() -> None:
    def grid(n: int) -> str:
        return alternatives(f"big/lr~0.{i:03d}_seed~{j:02d}" for i in range(n) for j in range(n))

    assert len(grid(30)) < 3 * len(grid(3))
