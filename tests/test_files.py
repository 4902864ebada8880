"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from liouville.files import atomic


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
