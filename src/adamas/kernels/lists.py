"""Questions about lists of tensors that come up at every step; answered in C++ where the extension is built."""

from __future__ import annotations

from itertools import pairwise
from operator import is_
from typing import Any

import torch
from torch import Tensor

from adamas.kernels.torch_extension import native


def same_objects(a: list[Any], b: list[Any]) -> bool:
    """Return whether the lists are equally long and `a[i] is b[i]` for all i."""
    return native.same_objects(a, b) if native is not None else len(a) == len(b) and all(map(is_, a, b))


def disjoint(tensors: list[Tensor]) -> bool:
    """Return whether no two of the tensors share memory; False where this is unknown."""
    if native is not None and native.disjoint(tensors):
        return True
    if not all(type(x) in (Tensor, torch.nn.Parameter) and x.layout is torch.strided for x in tensors):
        return False
    spans = sorted(
        (
            x.data_ptr(),
            x.data_ptr() + (1 + sum(s * (n - 1) for s, n in zip(x.stride(), x.shape, strict=True))) * x.itemsize,
        )
        for x in tensors
        if x.numel()
    )
    return all(end <= begin for (_, end), (begin, _) in pairwise(spans))
