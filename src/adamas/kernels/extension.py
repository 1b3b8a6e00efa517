"""The compiled extension, or the reason why it is missing; for every framework, and without importing one."""

from __future__ import annotations

from importlib import import_module
from typing import Any

native: Any = None
missing: str | None = None  # the reason why there is no extension

try:
    native = import_module("adamas.kernels._native")
except ModuleNotFoundError:
    missing = "the native kernel was not built"
except ImportError as error:
    missing = f"the native kernel cannot be loaded ({error})"
