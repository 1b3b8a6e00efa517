"""The source distribution holds whatever its own tests read: packagers run them from it."""

from __future__ import annotations

import os
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = ("CMakeLists.txt", "Makefile", "README.md", "README.zh-CN.md", "pyproject.toml")
READ_BY_TESTS = (*FILES, "benchmarks", "docs", "examples", "native", "src", "tests")


def excluded() -> list[str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["tool"]["scikit-build"]["sdist"]["exclude"]


def test_nothing_that_tests_read_is_left_out() -> None:
    """Every pattern is anchored at the root, so that it names a folder there and no other."""
    for pattern in excluded():
        assert pattern.startswith("/"), pattern
        assert pattern.split("/")[1] not in READ_BY_TESTS, f"{pattern} is read by tests"


def test_the_built_archive_has_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the build backend is installed: results, pages, figures, the kernel's sources and the tests are in it."""
    build = pytest.importorskip("scikit_build_core.build", reason="the build backend is installed by hand")
    monkeypatch.chdir(ROOT)
    archive = tmp_path / build.build_sdist(os.fspath(tmp_path))
    with tarfile.open(archive) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    for folder, pattern in (
        ("benchmarks/results", "*.json"), ("docs", "*.md"), ("docs/figures", "*"), ("examples", "**/*.py"),
        ("native", "*.hpp"), ("tests", "*.py"), ("tests/native", "*"), ("src/adamas/compare", "*.txt"),
    ):  # fmt: skip
        wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob(pattern) if path.is_file()}
        assert wanted, folder
        assert wanted <= held, wanted - held
