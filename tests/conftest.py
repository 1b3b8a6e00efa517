"""Fixtures and options that all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
import torch

from adamas.kernels import native, triton
from tests.conformance import interpreter


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-native",
        action="store_true",
        help="fail unless the native kernel is built (as it is where a compiler is)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--require-native") and native.missing is not None:
        raise pytest.UsageError(f"--require-native: {native.missing}")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws from the same random stream, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def without_accelerator() -> Iterator[None]:
    """No test leaves its Accelerator: while there is one, every optimizer's first step searches for its wrappers."""
    yield
    module = sys.modules.get("accelerate.state")
    if module is not None and module.is_initialized():
        module.AcceleratorState._reset_state()


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and triton.missing() is None
if INTERPRETED:
    interpreter.quicken()


def available_kernels() -> list[str]:
    """Names of the kernels that step tensors on the CPU here; a new kernel adds its line."""
    return ["eager"] + ([] if native.missing else ["native"]) + (["triton"] if INTERPRETED else [])


KERNELS = available_kernels()
# Those that step a bucket wherever it has to lie for that.
ON_A_GPU = torch.cuda.is_available() and not INTERPRETED
EVERYWHERE = [*KERNELS, *([pytest.param("triton", marks=pytest.mark.gpu)] if ON_A_GPU else [])]
needs_native = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
