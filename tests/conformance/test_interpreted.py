"""The Triton kernel's tests through Triton's interpreter, each part in a process of its own: no GPU is needed.

The interpreter computes in NumPy what a GPU would, program after program, and is chosen when Triton is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adamas.kernels import triton
from tests.conftest import INTERPRETED

ROOT = Path(__file__).parent.parent.parent
# Two processes of about the same length, since each imports torch and Triton: paths, and an expression for `-k`.
PARTS = [
    (("tests/conformance/test_triton.py",), ""),
    (("tests/conformance/test_triton_options.py", "tests/conformance/test_accuracy.py", "tests/fronts/test_triton.py"),
     "triton"),
]  # fmt: skip


@pytest.mark.skipif(triton.missing() is not None, reason=str(triton.missing()))
@pytest.mark.skipif(INTERPRETED or torch.cuda.is_available(), reason="these tests run here as they are")
@pytest.mark.parametrize(("paths", "chosen"), PARTS)
def test_the_interpreter_passes(paths: tuple[str, ...], chosen: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *paths]
    result = subprocess.run(
        [*command, *(("-k", chosen) if chosen else ())],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
