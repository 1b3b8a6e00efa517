from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from adamas import user_code


def write(folder: Path, answer: int) -> str:
    """A file with a function, which a helper and a package beside it help."""
    (folder / "parts").mkdir(parents=True)
    (folder / "parts" / "__init__.py").write_text("")
    (folder / "parts" / "inner.py").write_text(f"FACTOR = {answer}")
    (folder / "helper_of_tests.py").write_text(f"ANSWER = {answer}")
    code = "from helper_of_tests import ANSWER\nfrom parts.inner import FACTOR\ndef job(): return ANSWER * FACTOR"
    (folder / f"job_{answer}.py").write_text(code)
    return f"{folder / f'job_{answer}.py'}:job"


def test_each_file_gets_the_helpers_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would give the second file the first one's: a module is imported once."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    first, second = (write(tmp_path / name, answer) for name, answer in (("a", 2), ("b", 3)))
    jobs = [user_code.function(where, "job", "a Job") for where in (first, second, first)]
    assert [job() for job in jobs] == [4, 9, 4]
    assert sys.modules["__main__"] is not None


def test_a_module_that_imports_others_when_asked_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch's and transformers' lazy ones do: what is being gone through would change on the way."""

    class Lazy(ModuleType):
        def __getattr__(self, name: str) -> str:
            sys.modules[f"asked_for_{name}"] = ModuleType(name)
            return "here.py"

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", {**sys.modules, "lazy": Lazy("lazy")})
    assert user_code.function(write(tmp_path / "a", 2), "job", "a Job")() == 4
    assert not any(name.startswith("asked_for") for name in sys.modules)


def test_helpers_that_do_not_clash_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    user_code.function(write(tmp_path / "a", 2), "job", "a Job")
    before = sys.modules["helper_of_tests"]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "job.py").write_text("def job(): return 1")
    user_code.function(f"{tmp_path / 'c' / 'job.py'}:job", "job", "a Job")
    assert sys.modules["helper_of_tests"] is before
