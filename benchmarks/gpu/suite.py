"""All of `make gpu`: the check, then the tests that need a GPU, then the benchmarks, in at most 9 minutes.

Only test files with GPU tests are collected, and pytest loads no plugins: other files and plugins may import packages
that a bare checkout lacks. The exit code is that of the check, or else `TESTS_FAILED`, `BENCHMARKS_FAILED` or their
sum.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDS_A_GPU = re.compile(r"mark\.gpu|NEEDS_A_GPU|EVERYWHERE")
TESTS_SECONDS, BENCHMARKS_SECONDS = 230.0, 280.0
AT_ONCE = 4  # processes of pytest
TESTS_FAILED, BENCHMARKS_FAILED = 4, 8
PYTEST = ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "--continue-on-collection-errors")


def main(arguments: Sequence[str]) -> int:
    """Run all parts, say which one failed, and return the exit code.

    Args:
        arguments: options for `python -m benchmarks.gpu`.
    """
    if find_spec("torch") is None:
        print(f"no torch: {sys.executable} has none; with make gpu, PYTHON=... chooses another interpreter")
        return 1
    check = within([("-m", "benchmarks.gpu", "--check")], 120.0)
    if check != 0:
        return 1 if check is None else check
    files = sorted(path for path in (ROOT / "tests").rglob("test_*.py") if NEEDS_A_GPU.search(path.read_text()))
    tests = within([(*PYTEST, str(path.relative_to(ROOT))) for path in files], TESTS_SECONDS, AT_ONCE)
    benchmarks = within([("-m", "benchmarks.gpu", *arguments)], BENCHMARKS_SECONDS, grace=5.0)
    for part, code, seconds in (("tests", tests, TESTS_SECONDS), ("benchmarks", benchmarks, BENCHMARKS_SECONDS)):
        if code != 0:
            said = f"were CUT SHORT after {seconds:.0f} s" if code is None else f"FAILED with exit code {code}"
            print(f"make gpu: the {part} {said}")
    return TESTS_FAILED * (tests != 0) + BENCHMARKS_FAILED * (benchmarks != 0)


def within(commands: Sequence[Sequence[str]], seconds: float, at_once: int = 1, grace: float = 10.0) -> int | None:
    """Run this interpreter with each of the given arguments.

    Args:
        commands: arguments of each process.
        seconds: time for all of them; then the running ones get the signal of Ctrl-C.
        at_once: number of processes at a time.
        grace: seconds between that signal and the end of a process.

    Returns:
        The first exit code that is not 0, or 0; None where the time was up.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    waiting, running, codes = list(commands), list[subprocess.Popen[bytes]](), [0]
    end = time.monotonic() + seconds
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                command = [sys.executable, *waiting.pop(0)]
                running.append(subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True))
            codes += [process.returncode for process in running if process.poll() is not None]
            running = [process for process in running if process.returncode is None]
            if (waiting or running) and time.monotonic() > end:
                return None
            time.sleep(0.05)
    finally:
        stop(running, grace)
    return next((code for code in codes if code != 0), 0)


def stop(processes: Sequence[subprocess.Popen[bytes]], grace: float) -> None:
    """Send processes the signal of Ctrl-C, with all that they started, and kill those that stay."""
    for number in (signal.SIGINT, signal.SIGKILL):
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, number)
        end = time.monotonic() + grace
        while time.monotonic() < end and any(process.poll() is None for process in processes):
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
