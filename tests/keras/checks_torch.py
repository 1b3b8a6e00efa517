"""Checks on the torch backend only. `test_backends.py` runs this file."""

from __future__ import annotations

import keras
import numpy as np
import torch

from adamas.keras import AdamW, mechanism
from adamas.kernels import native
from tests.keras.tools import gradients, numpy


def test_the_native_kernel_steps_where_it_is_built() -> None:
    what, why = mechanism()
    expected = "native" if native.missing is None else "eager"
    assert what == f"the kernel {expected!r} for all variables"
    assert native.missing is None or why == native.missing


def test_it_agrees_with_the_optimizer_for_torch_bit_by_bit() -> None:
    from adamas.torch import AdamW as OfTorch

    shapes = [(5, 3), (4,)]
    starts = [np.ones(shape, dtype="float32") for shape in shapes]
    variables = [keras.Variable(x) for x in starts]
    params = [torch.nn.Parameter(torch.tensor(x)) for x in starts]
    ours, theirs = AdamW(0.5, weight_decay=0.125), OfTorch(params, lr=0.5, weight_decay=0.125)
    for t in range(10):
        for param, grad in zip(params, gradients(shapes)(t), strict=True):
            param.grad = torch.tensor(grad)
        ours.apply([param.grad for param in params], variables)
        theirs.step()
    for variable, param in zip(variables, params, strict=True):
        assert (numpy(variable) == param.detach().numpy()).all()
    assert len(ours._steps._prepared) == 1
