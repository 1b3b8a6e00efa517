"""Train half in one framework, convert, finish in another: every ordered pair of torch, JAX and Keras.

On torch a model of Keras is a torch module too, which must not confuse. `crossing.py` runs on Keras's JAX as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_the_loss_goes_on_in_another_framework(tmp_path: Path, backend: str) -> None:
    lacking = [name for name in ("jax", "optax", "keras", backend) if find_spec(name) is None]
    if lacking:
        pytest.skip(f"{' and '.join(lacking)} is not installed")
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.checkpoint.crossing", str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    assert len(found) == (18 if backend == "tensorflow" else 4)
    assert max(found.values()) < 1e-5, found
