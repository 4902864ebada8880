"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from liouville.files import atomic, remove_left_over


def test_a_failure_leaves_nothing_new(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic(target) as path:
        path.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_success_renames_with_ordinary_permissions(tmp_path: Path) -> None:
    plain, target = tmp_path / "plain", tmp_path / "b.txt"
    plain.touch()
    with atomic(target) as path:
        assert path.parent == tmp_path
        path.write_text("whole")
    assert target.read_text() == "whole"
    assert target.stat().st_mode == plain.stat().st_mode


def test_a_folder_that_is_not_there_is_told_by_the_name_that_was_given(tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "note.txt"
    with pytest.raises(FileNotFoundError, match="No such file") as caught, atomic(target):
        pass
    assert caught.value.filename == str(target)


def test_only_what_atomic_left_is_removed(tmp_path: Path) -> None:
    mine = [".env.local", ".env.production", ".env.a.b", ".run[1].x1y2z3_4.txt.bak", ".run1.x1y2z3_4.txt"]
    left = [".env.x1y2z3_4", ".run[1].txt.x1y2z3_4.txt"]
    for name in mine + left:
        (tmp_path / name).write_text("")
    remove_left_over(tmp_path, "env", "run[1].txt")
    assert {path.name for path in tmp_path.iterdir()} == set(mine)
