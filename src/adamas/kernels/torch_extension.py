"""The compiled extension, told where torch's classes are; None where it is missing."""

from __future__ import annotations

from typing import Any

import torch

from adamas.kernels import extension

native: Any = extension.native
if native is not None:
    native.use_torch(torch.Tensor, torch.nn.Parameter, getattr(torch.Tensor, "__dlpack_c_exchange_api__", None))
