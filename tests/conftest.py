"""Fixtures and options that all tests share."""

from __future__ import annotations

import pytest
import torch

from adamas.kernels import native


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


def available_kernels() -> list[str]:
    """Names of the kernels that can run here; a new kernel adds its line."""
    return ["eager"] + ([] if native.missing else ["native"])


KERNELS = available_kernels()
needs_native = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
