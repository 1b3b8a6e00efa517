"""A process that ends without unloading torch ends as any other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.compare.conftest import ROOT

SCRIPT = """
import atexit, sys
from adamas.leaving import {function}

class Unloaded:
    def __del__(self):
        sys.__stdout__.write("unloaded")

sys.modules["torch"] = Unloaded()
atexit.register(print, "at exit")

def work():
    atexit.register(print, "of the work")
    print("done", end=" ")
    {end}

{function}(work)
"""


def ended(function: str, end: str) -> tuple[int, str, str]:
    """Exit code and what was written."""
    script = SCRIPT.format(function=function, end=end)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    return found.returncode, found.stdout, found.stderr


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [("", 0, ""), ("sys.exit(3)", 3, ""), ("sys.exit()", 0, ""), ("sys.exit('no')", 1, "no\n")],
)
def test_the_exit_code_and_the_last_words_are_those_of_python(end: str, code: int, said: str) -> None:
    # What was registered before the process knew how it would end is called by nobody: see `leave_last`.
    assert ended("leave_last", end) == (code, "done of the work\n", said)
    assert ended("leave", end) == (code, "done ", said)


@pytest.mark.parametrize("function", ["leave", "leave_last"])
def test_what_is_raised_is_shown(function: str) -> None:
    code, written, said = ended(function, "raise OSError('no')")
    assert code == 1
    assert written.startswith("done ")
    assert said.endswith("OSError: no\n")


def test_where_nobody_reads_python_says_so() -> None:
    script = SCRIPT.format(function="leave_last", end="")
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            [sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, cwd=ROOT, check=False
        )
    assert found.returncode != 0
    assert b"No space left" in found.stderr
