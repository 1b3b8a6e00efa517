"""A file is written whole or not at all."""

import os
from pathlib import Path

import pytest

from adamas.whole_file import whole_file, write_whole


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "deeper" / "text.txt"
    write_whole(path, "权重衰减\n")
    assert path.read_text(encoding="utf-8") == "权重衰减\n"
    assert [each.name for each in path.parent.iterdir()] == ["text.txt"]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "half of the new \ud800")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["text.txt"]


def test_the_umask_decides_the_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "text.txt") as unfinished:
            unfinished.unlink()
            unfinished.touch(mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "text.txt").stat().st_mode & 0o777 == 0o640
