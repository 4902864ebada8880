"""Unknown names are answered with the nearest right one."""

from __future__ import annotations

import pytest

from liouville.names import lookup, suggestion

TABLE = {"swiss-roll": 1, "double-moons": 2}


@pytest.mark.parametrize("typed", ["swiss_roll", "Swiss-Roll", "swisroll"])
def test_suggestion(typed: str) -> None:
    with pytest.raises(ValueError, match=f"unknown data set '{typed}'; did you mean 'swiss-roll'"):
        lookup(TABLE, typed, "data set")


def test_nothing_near_and_no_text() -> None:
    assert suggestion("zzz", TABLE) == ""
    with pytest.raises(ValueError, match=r"unknown data set 3; known data sets: swiss-roll, double-moons\."):
        lookup(TABLE, 3, "data set")
    assert lookup(TABLE, "double-moons", "data set") == 2
