"""`make gpu` as a whole, with commands of the tests' own in place of pytest and the benchmarks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import suite

ROOT = Path(__file__).parents[3]


def code(text: str) -> tuple[str, str]:
    return "-c", text


def test_the_first_failure_is_the_exit_code_and_stops_no_other(tmp_path: Path) -> None:
    done = tmp_path / "done"
    commands = [code("pass"), code("raise SystemExit(3)"), code(f"open({str(done)!r}, 'w')")]
    assert suite.within(commands, 60.0) == 3
    assert done.exists()
    assert suite.within([code("pass")] * 2, 60.0, at_once=2) == 0


def test_what_takes_too_long_is_interrupted_and_the_rest_is_not_begun(tmp_path: Path) -> None:
    started, kept, never = (tmp_path / name for name in ("started", "kept", "never"))
    slow = (
        "import time\n"
        "try:\n"
        f"    open({str(started)!r}, 'w')\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        f"    open({str(kept)!r}, 'w')"
    )
    begun = time.monotonic()
    assert suite.within([code(slow), code(f"open({str(never)!r}, 'w')")], 3.0, grace=10.0) is None
    assert time.monotonic() - begun < 30
    assert kept.exists() == started.exists()  # a loaded machine may not have started it
    assert not never.exists()


def test_what_ignores_the_signal_is_killed() -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    begun = time.monotonic()
    assert suite.within([code(stubborn)], 2.0, grace=0.5) is None
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("found", "exit_code", "messages"),
    [
        ((0, 0, 0), 0, []),
        ((2,), 2, []),
        ((0, 1, 0), suite.TESTS_FAILED, ["the tests FAILED with exit code 1"]),
        ((0, 0, 5), suite.BENCHMARKS_FAILED, ["the benchmarks FAILED with exit code 5"]),
        ((0, None, 0), suite.TESTS_FAILED, ["the tests were CUT SHORT after 230 s"]),
        (
            (0, 1, None),
            suite.TESTS_FAILED + suite.BENCHMARKS_FAILED,
            ["the tests FAILED", "the benchmarks were CUT SHORT after 280 s"],
        ),
    ],
)
def test_the_exit_code_says_which_part_failed(
    found: tuple[int | None, ...],
    exit_code: int,
    messages: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[Sequence[Sequence[str]]] = []

    def within(commands: Sequence[Sequence[str]], seconds: float, at_once: int = 1, grace: float = 10.0) -> int | None:
        asked.append(commands)
        return found[len(asked) - 1]

    monkeypatch.setattr(suite, "within", within)
    assert suite.main(["--out", "there.json"]) == exit_code
    assert len(asked) == len(found)
    printed = capsys.readouterr().out
    assert all(message in printed for message in messages)
    assert bool(printed) == bool(messages)
    if len(asked) == 3:
        files = [command[-1] for command in asked[1]]
        assert "tests/fronts/test_cuda.py" in files
        assert all(command[: len(suite.PYTEST)] == suite.PYTEST for command in asked[1])
        assert list(asked[2]) == [("-m", "benchmarks.gpu", "--out", "there.json")]


def test_it_fits_nine_minutes() -> None:
    assert suite.TESTS_SECONDS + suite.BENCHMARKS_SECONDS + 2 * 10 <= 9 * 60


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_make_gpu_without_a_gpu_stops_before_the_tests() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make")
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "OUT")}
    run = subprocess.run(
        [make, "gpu", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert run.returncode != 0
    assert "no GPU" in run.stderr
    assert "pytest" not in run.stdout + run.stderr
