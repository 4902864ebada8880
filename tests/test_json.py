"""JSON that somebody edited is refused in one sentence that leads to the place."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from liouville.documents import Name, Numbers, Rule, conform, parse, read, read_lines


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: float | None = None


class Sheet(TypedDict):
    name: Name
    points: list[Point]
    shape: NotRequired[tuple[int, ...]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is not JSON"),
        ("{", "it is not JSON"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ("[-Infinity]", "-Infinity is no number of JSON"),
        ("1e999", "the number 1e999 is too large"),
        ("9" * 30, "is too large"),
        ("9" * 6000, "is too large"),
        ('{"a": 1, "a": 2}', "the name 'a' stands twice in one object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        (b"\xff\xfe{\x00}\x00", "it is not JSON"),
    ],
)
def test_what_is_no_json_is_refused(text, words):
    with pytest.raises(ValueError, match=r"^file is damaged: ") as caught:
        parse(text, "file")
    assert words in str(caught.value)


def test_a_byte_order_mark_is_no_damage():
    assert parse(b'\xef\xbb\xbf{"a": 1}', "file") == {"a": 1}


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (True, int, "v must be a whole number, got true."),
        (1.0, int, "v must be a whole number, got 1.0."),
        ("1", float, 'v must be a number, got "1".'),
        (False, float | None, "v must be a number or null, got false."),
        (1, bool, "v must be true or false, got 1."),
        (1, Literal["a", "b"], 'v must be "a" or "b", got 1.'),
        (True, Literal[1], "v must be 1, got true."),
        ([1, "2"], list[int], 'v[1] must be a whole number, got "2".'),
        ([1, 2, 3], tuple[int, int], "v must be a list of 2, got [1, 2, 3]."),
        ({"a": {"b": None}}, dict[str, dict[str, int]], "v.a.b must be a whole number, got null."),
        ([[1, 2], [3]], Numbers, "v must be a number, or a list of numbers, got a list of 2."),
        ([[1, True]], Numbers, "v must be a number, or a list of numbers, got a list of 1."),
        ("\x1b[2J", Name, 'v must be text of printable characters, got "\\u001b[2J".'),
        ("\ud800", Name, 'v must be text of printable characters, got "\\ud800".'),
        ({"y": 1}, Point, "v.x must be a whole number, got nothing."),
        ({"x": 1, "y": None, "z": 2}, Point, "v.z must be left out; known are x, y, got 2."),
        ({"name": "n", "points": [{"x": 1, "y": "2"}]}, Sheet, 'v.points[0].y must be a number or null, got "2".'),
        ({"points": []}, Sheet, "v.name must be text of printable characters, got nothing."),
        (4, Annotated[int, Rule("even and small", lambda n: n < 4)], "v must be even and small, got 4."),
    ],
)
def test_the_sentence_leads_to_what_does_not_fit(value, kind, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        conform(value, kind, "v")
    assert str(caught.value) == message
    with pytest.raises(ValueError, match=r"^run/config.json is damaged: "):
        conform(value, kind, "v", "run/config.json")


def test_what_fits_passes():
    conform({"name": "n", "points": [{"x": 1, "y": 2}], "more": 1, "shape": [1, 2]}, Sheet)
    for value, kind in (
        ({"x": 1}, Point),
        (1, float),
        (None, float | None),
        ([1, [2]], list[Any]),
        ([[1.0, 2], [3, 4]], Numbers),
    ):
        conform(value, kind)


def test_a_file_that_is_none_is_named(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="is damaged: it is not a file"):
        read(tmp_path / "folder")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")
    (tmp_path / "lines").write_text('{"a": 1}\n\n{"a":\n')
    with pytest.raises(ValueError, match=r"^line 3 of .*lines is damaged: it is not JSON"):
        read_lines(tmp_path / "lines")
