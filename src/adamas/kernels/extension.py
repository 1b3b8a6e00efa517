"""The compiled extension for the `native` kernel and for `lists`, or the reason why it is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

native: Any = None
missing: str | None = None  # the reason why there is no extension

try:
    native = import_module("adamas.kernels._native")
except ModuleNotFoundError:
    missing = "the native kernel was not built"
except ImportError as error:
    missing = f"the native kernel cannot be loaded ({error})"
else:
    native.use_torch(torch.Tensor, torch.nn.Parameter, getattr(torch.Tensor, "__dlpack_c_exchange_api__", None))
