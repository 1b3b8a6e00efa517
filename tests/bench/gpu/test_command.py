"""The command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adamas.bench.result import Result
from benchmarks.gpu import __main__ as command
from benchmarks.gpu.plan import F32, FUSED, LEAN, MODEL, ONE, OURS, PLAN
from tests.bench.gpu.conftest import task

ROOT = Path(__file__).parents[3]
without_a_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@without_a_gpu
def test_without_a_gpu_it_says_so_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a program, and with `--check` in this process."""
    out = tmp_path / "gpu.json"
    whole = [sys.executable, "-m", "benchmarks.gpu", "--out", str(out)]
    run = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False)
    code, printed = command.main(["--out", str(out), "--check"]), capsys.readouterr()
    for ended, stdout, stderr in ((run.returncode, run.stdout, run.stderr), (code, printed.out, printed.err)):
        assert ended == 2
        assert "finds no CUDA device, and nothing was run" in stderr
        assert stdout == ""
    assert not out.exists()


def test_it_needs_neither_typer_nor_rich() -> None:
    unwanted = {"rich", "typer", "scipy", "sklearn", "optuna"}
    code = f"import sys, benchmarks.gpu.__main__, benchmarks.gpu.suite; print({unwanted} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_a_dry_run_writes_and_prints_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order = [(ONE, "step", F32, FUSED), (MODEL, "peak", LEAN, OURS), (ONE, "step", LEAN, FUSED)]
    tasks = [(task(*each), each[-1]) for each in order]
    monkeypatch.setattr(command, "tasks_of", lambda shapes, judged: tasks)
    out = tmp_path / "dry.json"
    assert command.main(["--dry-run", "--rounds", "5", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("A DRY RUN")
    assert "0 of 0 measured limits are kept." in printed.out.splitlines()[-1]
    assert "1 x 1 G, step, float32 beside torch-fused" in printed.err
    result = Result.read(out)
    assert (result.machine["dry"], result.complete, len(result.rows)) == (True, True, 3)
    assert {"adamas", "torch", "python"} <= result.versions.keys()


def test_a_run_without_time_has_every_row_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "dry.json"
    assert command.main(["--dry-run", "--seconds", "0", "--out", str(out)]) == 0
    data = json.loads(out.read_text())
    assert not data["complete"]
    assert len(data["rows"]) == len(PLAN)
    assert {row["reason"] for row in data["rows"]} == {"not measured: no time was left after 0 s of 0"}
    assert "NOT complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--dry-run",), "--dry-run needs --out"), (("--rounds", "3"), "rounds=3 must be >= 5")],
)
def test_usage_errors_exit_with_2(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        command.main(list(arguments))
    assert raised.value.code == 2
    assert message in capsys.readouterr().err
