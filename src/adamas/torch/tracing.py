"""Whether torch is tracing a program here, so that operations are recorded and numbers do not exist yet."""

from __future__ import annotations

import torch
from torch import Tensor

from adamas.state.layout import is_traced

_KEYS = torch._C._TorchDispatchModeKey  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
_MODES = (_KEYS.FAKE, _KEYS.PROXY, _KEYS.FUNCTIONAL)


def is_faking() -> bool:
    """Whether FakeTensorMode is at work: it must not meet a tensor with memory, which some operations would write."""
    return torch._C._get_dispatch_mode(_KEYS.FAKE) is not None  # pyright: ignore


def is_tracing(tensor: Tensor | None = None) -> bool:
    """Whether FakeTensorMode, make_fx or functionalisation is at work, or this tensor is one of theirs.

    Only torch operations may be used then: a kernel of ours would read and write memory behind the program's back.
    """
    if tensor is not None and is_traced(tensor):
        return True
    return (
        torch._C._len_torch_dispatch_stack() > 0  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
        and any(torch._C._get_dispatch_mode(key) is not None for key in _MODES)  # pyright: ignore
    )
