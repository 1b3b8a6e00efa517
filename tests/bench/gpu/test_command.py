"""The command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import command
from benchmarks.gpu.plan import F32, FUSED, LEAN, OURS, Comparison, Peak
from benchmarks.gpu.result import Result
from benchmarks.gpu.shapes import ONE

ROOT = Path(__file__).parents[3]
without_a_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@without_a_gpu
@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_without_a_gpu_it_says_so_and_does_nothing(arguments: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(out), *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "finds no CUDA device, and nothing was run" in run.stderr
    assert run.stdout == ""
    assert not out.exists()


@without_a_gpu
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


def test_it_needs_neither_typer_nor_rich() -> None:
    code = (
        "import sys, benchmarks.gpu.command; print({'rich', 'typer', 'scipy', 'sklearn', 'optuna'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_a_dry_run_writes_and_prints_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [Comparison(ONE, "step", F32, FUSED), Peak(OURS, LEAN), Comparison(ONE, "step", LEAN, FUSED, "bfloat16")]
    monkeypatch.setattr(command, "plan", lambda: tasks)
    out = tmp_path / "dry.json"
    assert command.main(["--dry-run", "--rounds", "5", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("A DRY RUN")
    assert "0 of 0 measured limits hold." in printed.out.splitlines()[-1]
    assert "1 x 1 G, step, float32 beside torch-fused" in printed.err
    result = Result.read(out)
    assert (result.dry, result.complete, len(result.rows), len(result.peaks)) == (True, True, 2, 1)
    assert {"adamas", "torch", "python", "numpy"} <= result.versions.keys()
    assert {"copy_bandwidth", "matrix_rate", "copy_bandwidth_after"} == result.ceilings.keys()


def test_a_run_without_time_has_every_row_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "dry.json"
    assert command.main(["--dry-run", "--seconds", "0", "--out", str(out)]) == 0
    data = json.loads(out.read_text())
    assert not data["complete"]
    assert len(data["rows"]) + len(data["peaks"]) == len(command.plan())
    assert {row["reason"] for row in data["rows"] + data["peaks"]} == {"not reached within 0 s"}
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
