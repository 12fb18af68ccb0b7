"""Regular expressions for names: one that matches the names of a list and nothing else.

Conventions: the names are read letter by letter. A beginning that several share is written once,
and letters after which the same may follow are written as a set, so that of the grid of a sweep
little more than its values is left: `a~(?:1|2)_b~3` for a~1_b~3 and a~2_b~3. At every letter one
branch at most fits, so a match takes as long as the name is, however many names there are.

Imports no torch.
"""

import re
from collections.abc import Iterable
from functools import cache

NOTHING = "(?!)"
"""Matches no text at all."""


def alternatives(names: Iterable[str]) -> str:
    """Return a regular expression that matches one of the names and nothing else."""
    return _written(frozenset(names))


@cache
def _written(names: frozenset[str]) -> str:
    return _pattern(names) if names else NOTHING


def _pattern(names: Iterable[str]) -> str:
    """Return what matches these names or ends of names; the empty one may be among them."""
    following: dict[str, set[str]] = {}
    may_end = False
    for name in names:
        if name:
            following.setdefault(name[0], set()).add(name[1:])
        else:
            may_end = True
    letters: dict[str, list[str]] = {}
    for letter in sorted(following):
        letters.setdefault(_pattern(following[letter]), []).append(letter)
    if not letters:
        return ""
    branches = [_one_of(before) + rest for rest, before in letters.items()]
    pattern = branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
    return f"(?:{pattern})?" if may_end else pattern


def _one_of(letters: list[str]) -> str:
    escaped = [re.escape(letter) for letter in letters]
    return escaped[0] if len(escaped) == 1 else f"[{''.join(escaped)}]"
