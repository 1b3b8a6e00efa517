"""The Triton kernel: the specification's bits in every storage, through its interpreter or on a GPU.

`test_interpreted` runs this file in a process of its own where there is no GPU; `make gpu` runs it on one, with larger
tensors.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adamas.formats import stored
from adamas.kernels import triton
from adamas.kernels.bucket import PLAIN, Bucket, Storage
from adamas.scalars import Hyper, StepScalars
from adamas.state.conform import conform
from tests.conformance.mirrored import DEVICE, DTYPES, NEEDS_A_GPU, Mirrored
from tests.conformance.test_stored_native import HYPERS, STORAGES
from tests.conftest import INTERPRETED

pytestmark = NEEDS_A_GPU

EVERY_STORAGE = [*((dtype, PLAIN) for dtype in DTYPES), *(pair for pair in STORAGES if not pair[1].plain)]
# Rows that end inside of blocks, at their end, and at odd elements; the third has 12-bit words at odd bytes.
SHAPES = (
    [(2, 300), (259,), (2, 257)]
    if INTERPRETED
    else [(8, 1024), (3, 300), (5, 257), (64, 64), (2, 3, 511), (9, 95), (3, 1600), (4099,)]
)


@pytest.mark.skipif(INTERPRETED, reason="needs 80 GB of a GPU's memory")
@pytest.mark.parametrize("storage", [Storage("packed16"), PLAIN], ids=str)
def test_more_elements_than_32_bits_count(storage: Storage) -> None:
    """Elements beyond 2**31, and beyond 2**32 in the count of random bits, are stepped as the first ones are."""
    rows, columns = 2**17 + 3, 2**15
    if torch.cuda.mem_get_info()[0] < 4.5 * rows * columns * 4:
        pytest.skip("the GPU has too little memory")
    scalars = StepScalars.of(Hyper(lr=0.1), 1, seed=3)
    big = torch.zeros(rows, columns, device=DEVICE)
    grad = torch.randn(1, columns, device=DEVICE).expand(rows, columns).clone()
    state = conform({}, big, storage, (), "big")
    prepared = triton.prepare(Bucket([big], [state], storage))
    triton.take(prepared, [grad])
    assert float(triton.squares(prepared)[0].sum()) == pytest.approx(float(grad[0].double().square().sum()) * rows)
    triton.step(prepared, [scalars])
    assert torch.equal(big[0], big[-1])  # the first step is lr * sign(g), whatever the moments' rounding
    assert torch.equal(big[0], big[rows // 2])
    exp_avg, exp_avg_sq = stored.moments(storage, {k: x[-2:] for k, x in state.items()}, big[-2:])
    assert torch.allclose(exp_avg, 0.1 * grad[-2:], atol=0.1 * float(grad.abs().max()) / 20)
    assert exp_avg_sq.isfinite().all()


@pytest.mark.parametrize("hyper", HYPERS)
@pytest.mark.parametrize(("dtype", "storage"), EVERY_STORAGE, ids=str)
def test_every_bit_is_the_specifications(dtype: str, storage: Storage, hyper: str) -> None:
    shapes = SHAPES if not INTERPRETED else [SHAPES[list(HYPERS).index(hyper)]]
    mirrored = Mirrored(shapes, dtype, storage)
    for step in range(1, 3 if INTERPRETED else 6):
        mirrored.step([StepScalars.of(HYPERS[hyper], step, seed=7)])
        mirrored.check(f"at step {step}")


@pytest.mark.parametrize(("dtype", "storage"), EVERY_STORAGE, ids=str)
def test_the_same_bits_after_many_steps(dtype: str, storage: Storage) -> None:
    mirrored = Mirrored([(1, 150)] if INTERPRETED else [(8, 1000), (64, 256), (7, 64)], dtype, storage)
    for step in range(1, 6 if INTERPRETED else 101):
        mirrored.step([StepScalars.of(HYPERS["adamw"], step, grad_factor=0.25, seed=2**40 + 3)])
    mirrored.check("after many steps")


@pytest.mark.parametrize("planted", ["another seed", "betas swapped", "no bias correction", "decay left out"])
def test_the_comparison_finds_planted_bugs(planted: str) -> None:
    """What the kernel is given differs from what the model is."""
    mirrored = Mirrored([(1, 200)], "bfloat16", Storage("packed16", 24, True))
    right, hyper = StepScalars.of(HYPERS["adamw"], 2, seed=7), HYPERS["adamw"]
    wrong = {
        "another seed": StepScalars.of(hyper, 2, seed=8),
        "betas swapped": right._replace(beta1=right.beta2, beta1_complement=right.beta2_complement),
        "no bias correction": right._replace(step_size=hyper.lr),
        "decay left out": right._replace(decay=0.0),
    }[planted]
    grad = mirrored.grads()[0]
    triton.take(mirrored.prepared, [torch.from_numpy(grad).view(torch.bfloat16).to(DEVICE)])
    triton.step(mirrored.prepared, [wrong])
    mirrored.models[0].step(grad, right)
    with pytest.raises(AssertionError, match="0"):
        mirrored.check()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, in the interpreter
def test_a_non_finite_gradient_spoils_its_own_block_alone() -> None:
    for moments, value in (("packed16", np.nan), ("packed12", np.inf), ("bfloat16", -np.inf)):
        mirrored = Mirrored([(2, 600)], "float32", Storage(moments))
        grad = torch.from_numpy(mirrored.grads()[0]).to(DEVICE)
        grad[0, 300] = value
        triton.take(mirrored.prepared, [grad])
        triton.step(mirrored.prepared, [StepScalars.of(Hyper(), 1, seed=1)])
        mirrored.models[0].step(grad.cpu().numpy(), StepScalars.of(Hyper(), 1, seed=1))
        ours = stored.moments(Storage(moments), mirrored.bucket.states[0], mirrored.bucket.params[0])
        theirs = mirrored.models[0].moments()
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine.cpu().numpy(), other)
            finite = mine.isfinite()
            assert finite[1].all()
            assert finite[0, :256].all()
            assert finite[0, 512:].all()
            assert not finite[0, 300]
