"""Adam and AdamW for Keras: `checks.py` in one process for each backend, because Keras has one for a process's life."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BACKENDS = ("tensorflow", "jax", "torch")
needs_keras = pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="pip install 'adamas[keras]'")


def run(backend: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a backend of Keras."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=HERE.parents[1], capture_output=True, text=True, check=False
    )


@needs_keras
@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend(backend: str) -> None:
    files = ["tests/keras/checks.py", f"tests/keras/checks_{backend}.py"]
    files = [name for name in files if (HERE.parents[1] / name).exists()]
    # Keras calls NumPy in a way that NumPy 2 deprecates.
    quiet = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    examples = ("--doctest-modules", "--pyargs", "adamas.keras.optimizer", "adamas.keras.backend")
    result = run(
        backend, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--durations=8", "-W", quiet, *examples, *files
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


@needs_keras
def test_import_brings_keras_and_its_backend_only() -> None:
    code = (
        "import sys, keras; before = set(sys.modules); import adamas.keras;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before if name.partition('.')[0] not in before})"
    )
    result = run("jax", "-W", "ignore", "-c", code)
    assert result.returncode == 0, result.stderr
    new = set(result.stdout.split()) - set(sys.stdlib_module_names)
    assert new == {"adamas"}


def test_a_missing_keras_is_named() -> None:
    code = "import sys; sys.modules['keras'] = None; import adamas.keras"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: keras is not installed: pip install 'adamas[keras]'"
    )
