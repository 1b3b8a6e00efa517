"""Tell whether torch is tracing a program: operations are recorded then, and numbers do not exist yet."""

from __future__ import annotations

import torch
from torch import Tensor

from adamas.state.layout import is_traced

_KEYS = torch._C._TorchDispatchModeKey  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
_MODES = (_KEYS.FAKE, _KEYS.PROXY, _KEYS.FUNCTIONAL)


def is_faking() -> bool:
    """Whether FakeTensorMode is active, in which some operations would still write to tensors with memory."""
    return torch._C._get_dispatch_mode(_KEYS.FAKE) is not None  # pyright: ignore


def is_tracing(tensor: Tensor | None = None) -> bool:
    """Whether FakeTensorMode, make_fx or functionalisation is active, or made this tensor.

    Only torch operations may be used then: the trace would miss the memory accesses of our kernels.
    """
    if tensor is not None and is_traced(tensor):
        return True
    return (
        torch._C._len_torch_dispatch_stack() > 0  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
        and any(torch._C._get_dispatch_mode(key) is not None for key in _MODES)  # pyright: ignore
    )
