"""Twenty thousand steps in which everything that may change does, beside the reference; memory stays where it was."""

from __future__ import annotations

import ctypes
import gc
import math
import resource
import sys

import numpy as np
import pytest
import torch

from adamas import reference
from adamas.scalars import Hyper
from adamas.torch import AdamW
from tests.conftest import KERNELS

SHAPES = [(3, 4), (17,), (), (2, 3, 2), (65,), (5, 1), (1,), (8, 8)]
STEPS = {"native": 20_000, "eager": 5_000}  # eager shares everything but the kernel with native
MAX_NORM, EMA_DECAY = 4.0, 0.99
LIMIT = 2**18 if hasattr(ctypes.CDLL(None), "mallinfo2") else 2**22  # bytes: 70 a step of the shorter run


class Twin:
    """A parameter of the optimizer, and what the reference makes of it."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
        self.theta = rng.normal(size=shape)
        self.param = torch.nn.Parameter(torch.tensor(self.theta))
        self.state, self.average = reference.init(self.theta), None
        self.frozen = self.rests = False

    def give(self, rng: np.random.Generator) -> None:
        """A gradient in new memory, in the old one, in another layout, as a view of a larger buffer; or none."""
        if self.frozen or self.rests:
            self.param.grad = None
            return
        values = torch.tensor(rng.normal(size=self.theta.shape))
        how = rng.integers(4)
        if how == 0 and self.param.grad is not None:
            self.param.grad.copy_(values)
        elif how == 1 and values.ndim == 2:
            self.param.grad = values.t().contiguous().t()
        elif how == 2:
            buffer = torch.zeros(values.numel() + 7, dtype=torch.float64)
            self.param.grad = buffer[3 : 3 + values.numel()].view(values.shape).copy_(values)
        else:
            self.param.grad = values

    def follow(self, clipped: np.ndarray | None, hyper: Hyper, begins: bool) -> None:
        """The reference's step, if there was a gradient, and what a loop over all weights makes of their averages."""
        before = self.theta
        if clipped is not None:
            self.theta, self.state = reference.step(self.theta, clipped, self.state, hyper)
            if self.average is None:
                self.average = self.theta if begins else before
        if self.average is not None:
            self.average = reference.average(self.average, self.theta, EMA_DECAY)

    def agrees(self, optimizer: AdamW) -> None:
        np.testing.assert_allclose(self.param.detach().numpy(), self.theta, rtol=1e-9, atol=1e-11)
        if self.average is not None:
            m, v = optimizer.moments(self.param)
            np.testing.assert_allclose(m.numpy(), self.state.m, rtol=1e-9, atol=1e-11)
            np.testing.assert_allclose(v.numpy(), self.state.v, rtol=1e-9, atol=1e-13)
            np.testing.assert_allclose(optimizer.state[self.param]["ema"].numpy(), self.average, rtol=1e-9, atol=1e-11)
            assert int(optimizer.state[self.param]["step"]) == self.state.t


def disturb(rng: np.random.Generator, twins: list[Twin], optimizer: AdamW) -> None:
    """What a user may do between two steps, none of which changes a value."""
    twin = twins[rng.integers(len(twins))]
    state = optimizer.state.get(twin.param)
    match rng.integers(7):
        case 0:  # freeze or thaw
            twin.frozen = not twin.frozen
            twin.param.requires_grad_(not twin.frozen)
        case 1:  # leave a layer out for a while
            twin.rests = not twin.rests
        case 2:  # move the parameter
            twin.param.data = twin.param.data.clone()
        case 3 if state:  # move a moment, in its place and by another tensor
            state["exp_avg"].data = state["exp_avg"].data.clone()
            state["exp_avg_sq"] = state["exp_avg_sq"].clone()
        case 4:  # save and load
            optimizer.load_state_dict(optimizer.state_dict())
        case 5 if state and twin.param.ndim == 2:  # lay the parameter out otherwise
            twin.param.data = twin.param.data.t().contiguous().t()
        case _:
            optimizer.param_groups[0]["lr"] = float(rng.choice([1e-3, 3e-3]))


class MallocInfo(ctypes.Structure):
    """What glibc's `mallinfo2` returns."""

    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in names]


def held() -> tuple[int, int]:
    """Bytes that malloc has given out, and blocks that Python has.

    What the process takes from the system says less: its highest moved by 3 to 8 MB in runs of any length, in which
    malloc's figure moved by 7 kB. Where malloc does not say, it is all there is.
    """
    gc.collect()
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, sys.getallocatedblocks()
    mallinfo.restype = MallocInfo
    found = mallinfo()
    return found.uordblks + found.hblkhd, sys.getallocatedblocks()


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_soak(kernel: str) -> None:
    rng = np.random.default_rng(7)
    twins = [Twin(rng, shape) for shape in SHAPES]
    options = {"lr": 1e-3, "weight_decay": 0.1, "max_norm": MAX_NORM, "ema_decay": EMA_DECAY, "skip_nonfinite": True}
    optimizer = AdamW([twin.param for twin in twins], kernel=kernel, **options)
    steps, skipped = STEPS[kernel], 0
    before = (0, 0)
    for step in range(steps):
        if step == steps // 4:
            before = held()
        if step < steps // 5 and step % (steps // 25) == 1:
            twins.append(Twin(rng, SHAPES[rng.integers(len(SHAPES))]))
            optimizer.add_param_group({"params": [twins[-1].param], "lr": 2e-3})
        if rng.random() < 0.1:
            disturb(rng, twins, optimizer)
        for twin in twins:
            twin.give(rng)
        active = [twin for twin in twins if twin.param.grad is not None]
        spoiled = bool(active) and rng.random() < 0.01
        if spoiled:
            active[-1].param.grad[...] = float(rng.choice([math.inf, math.nan]))
            skipped += 1
        else:
            clipped = reference.clip([twin.param.grad.numpy() for twin in active], MAX_NORM)
            gradients = {id(twin): g for twin, g in zip(active, clipped, strict=True)}
            for group in optimizer.param_groups:
                ours = [twin for twin in twins if any(twin.param is param for param in group["params"])]
                begins = all(twin.average is None for twin in ours)
                for twin in ours:
                    hyper = Hyper(lr=group["lr"], weight_decay=0.1, decay="lr")
                    twin.follow(gradients.get(id(twin)), hyper, begins)
        optimizer.step()
        if step % (steps // 50) == 0 or step == steps - 1:
            for twin in twins:
                twin.agrees(optimizer)
    assert optimizer.skipped_steps == skipped > 0
    memory, blocks = (after - earlier for after, earlier in zip(held(), before, strict=True))
    assert memory < LIMIT, f"{memory / steps:.0f} bytes a step stayed behind"
    assert blocks < 2000
