"""The Triton kernel: the specification's bits in every storage, through its interpreter or on a GPU.

`test_interpreted` runs this file in a process of its own where there is no GPU; `make gpu` runs it on one, with larger
tensors and more steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adamas.kernels import stored, triton
from adamas.kernels.bucket import PLAIN, Bucket, MismatchError, Storage, Traits, state_names
from adamas.scalars import Hyper, StepScalars
from tests.conformance.cases import CASES, Case, device_of
from tests.conformance.stored_model import Model, patterns
from tests.conformance.test_stored_native import HYPERS, STORAGES
from tests.conftest import INTERPRETED

DEVICE = device_of("triton")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="needs a GPU, or TRITON_INTERPRET=1"),
]

DTYPES = ("float32", "bfloat16", "float16")
EVERY_STORAGE = [*((dtype, PLAIN) for dtype in DTYPES), *(pair for pair in STORAGES if not pair[1].plain)]
# Rows that end inside of blocks, at their end, and at odd elements; the third has 12-bit words at odd bytes.
SHAPES = (
    [(2, 300), (1, 256), (3, 257)] if INTERPRETED else [(8, 1024), (3, 300), (5, 257), (64, 64), (2, 3, 511), (9, 95)]
)


def tensors_of(model: Model) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The model's parameter and state as torch tensors on the device."""
    param = torch.from_numpy(model.param.copy())
    param = param if model.dtype == "float32" else param.view(getattr(torch, model.dtype))
    parts = stored.parts(model.storage, param)
    state = {}
    for name, array in model.state.items():
        tensor = torch.from_numpy(np.ascontiguousarray(array).copy())
        dtype, shape = parts.get(name, (tensor.dtype, tuple(param.shape)))
        state[name] = (tensor if tensor.dtype == dtype else tensor.view(dtype)).reshape(shape).to(DEVICE)
    return param.to(DEVICE), state


def bytes_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def draw(random: np.random.Generator, shape: tuple[int, ...], dtype: str, scale: Any = 1.0) -> np.ndarray:
    return patterns((scale * random.normal(0, 1, shape)).astype(np.float32), dtype)


class Mirrored:
    """Tensors in a bucket of the kernel, and models of them."""

    def __init__(
        self, shapes: list[tuple[int, ...]], dtype: str, storage: Storage, extras: tuple[str, ...] = ()
    ) -> None:
        self.random, self.dtype = np.random.default_rng(7), dtype
        self.models = [Model(storage, dtype, draw(self.random, shape, dtype)).begin() for shape in shapes]
        for model in self.models:
            model.state |= {name: np.zeros(model.param.shape, np.float32) for name in extras}
        self.scales = [np.exp(self.random.normal(0, 2, shape)) for shape in shapes]
        params, states = zip(*map(tensors_of, self.models), strict=True)
        averages, amsgrad = "ema" in extras, "max_exp_avg_sq" in extras
        self.names = state_names(amsgrad, averages, storage)
        self.bucket = Bucket(list(params), list(states), storage, amsgrad, averages)
        self.prepared = triton.prepare(self.bucket)

    def grads(self) -> list[np.ndarray]:
        """Gradients of many sizes, with zeros."""
        found = []
        for model, scale in zip(self.models, self.scales, strict=True):
            grad = draw(self.random, model.param.shape, self.dtype, scale)
            grad.reshape(-1)[::17] = 0
            found.append(grad)
        return found

    def step(
        self, steps: list[StepScalars], which: list[int] | None = None, zero_grad: bool = False
    ) -> list[torch.Tensor]:
        """Step both; the gradients that the kernel had are returned."""
        grads = self.grads()
        tensors = [torch.from_numpy(grad.copy()) for grad in grads]
        tensors = [x if self.dtype == "float32" else x.view(getattr(torch, self.dtype)) for x in tensors]
        tensors = [x.to(DEVICE) for x in tensors]
        triton.take(self.prepared, tensors)
        triton.step(self.prepared, steps, which, zero_grad)
        for i, (model, grad) in enumerate(zip(self.models, grads, strict=True)):
            model.step(grad, steps[which[i] if which else 0])
        return tensors

    def check(self, when: str = "") -> None:
        """Every byte is the model's."""
        for i, (model, param, state) in enumerate(
            zip(self.models, self.bucket.params, self.bucket.states, strict=True)
        ):
            assert model.same_bits("param", bytes_of(param)), f"param {i} {when}"
            for name in self.names:
                assert model.same_bits(name, bytes_of(state[name])), f"{name} {i} {when}"


@pytest.mark.parametrize("hyper", HYPERS)
@pytest.mark.parametrize(("dtype", "storage"), EVERY_STORAGE, ids=str)
def test_every_bit_is_the_specifications(dtype: str, storage: Storage, hyper: str) -> None:
    shapes = SHAPES if not INTERPRETED else [SHAPES[list(HYPERS).index(hyper)]]
    mirrored = Mirrored(shapes, dtype, storage)
    for step in range(1, 4 if INTERPRETED else 21):
        mirrored.step([StepScalars.of(HYPERS[hyper], step, seed=7)])
        mirrored.check(f"at step {step}")


@pytest.mark.parametrize(("dtype", "storage"), EVERY_STORAGE, ids=str)
def test_the_same_bits_after_a_hundred_steps(dtype: str, storage: Storage) -> None:
    mirrored = Mirrored([(1, 150)] if INTERPRETED else [(64, 1000), (4096, 256), (7, 64)], dtype, storage)
    for step in range(1, 101):
        mirrored.step([StepScalars.of(HYPERS["adamw"], step, grad_factor=0.25, seed=2**40 + 3)])
    mirrored.check("after 100 steps")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_option_gives_the_specifications_bits(case: Case, dtype: str) -> None:
    """Amsgrad, averages, conventions of decay and epsilon, learning rates of 0: with 16-bit weights to nearest."""
    extras = (*(("max_exp_avg_sq",) if case.amsgrad else ()), *(("ema",) if case.averages else ()))
    mirrored = Mirrored([(97,), (3, 5, 7)] if INTERPRETED else [(97,), (70_001,), (300, 64)], dtype, PLAIN, extras)
    for step in (1, 2):
        grads = mirrored.step([StepScalars.of(case.hyper, step, average_begins=step == 1)], zero_grad=step == 2)
        mirrored.check(f"at step {step}")
        assert all(bool(grad.any()) is (step == 1) for grad in grads)


@pytest.mark.parametrize("storage", [PLAIN, Storage("packed16", 24, True)], ids=str)
def test_tensors_of_one_launch_may_be_at_different_steps(storage: Storage) -> None:
    mirrored = Mirrored([(2, 100), (1, 65), (1, 70)], "bfloat16", storage)
    steps = [StepScalars.of(HYPERS["adamw"], step, seed=7) for step in (1, 5)]
    for which in ([0, 1, 0], [1, 0, 0], [1, 0, 0]):
        mirrored.step(steps, which)
        mirrored.check(str(which))


def on_device(scalars: StepScalars, count: int) -> StepScalars:
    """The same factors as tensors: one number for all, or for each tensor its own."""

    def tensor(x: Any, i: int) -> Any:
        if isinstance(x, bool) or x is None:
            return x
        dtype = torch.float64 if isinstance(x, float | int) and i >= 0 else torch.int64
        return torch.full((count,) if i % 2 else (), x, dtype=dtype, device=DEVICE)

    values = {name: tensor(x, i) for i, (name, x) in enumerate(scalars._asdict().items()) if name != "random"}
    key = None if scalars.random is None else type(scalars.random)(*(tensor(x, -1) for x in scalars.random))
    return scalars._replace(**values, random=key)


@pytest.mark.parametrize("skip", [None, False, True])
@pytest.mark.parametrize("storage", [PLAIN, Storage("packed12", 24, True), Storage("bfloat16")], ids=str)
def test_scalars_on_the_device_give_the_same_bits(storage: Storage, skip: bool | None) -> None:
    """A step that is skipped there changes nothing, though it zeroes the gradients."""
    dtype = "bfloat16" if storage.master_bits else "float32"
    shapes = [(2, 70), (1, 65)]
    mirrored = Mirrored(shapes, dtype, storage, ("ema",))
    hyper = Hyper(lr=1e-2, weight_decay=0.1, decay="lr", ema_decay=0.9)
    there = mirrored.prepared
    for step in (1, 2):
        scalars = StepScalars.of(hyper, step, grad_factor=0.5, average_begins=step == 1, seed=7)
        grads = mirrored.grads()
        tensors = [torch.from_numpy(grad.copy()) for grad in grads]
        tensors = [(x if dtype == "float32" else x.view(torch.bfloat16)).to(DEVICE) for x in tensors]
        triton.take(there, tensors)
        given = on_device(scalars, len(shapes))
        if skip is not None:
            given = given._replace(skip=torch.tensor(skip, device=DEVICE))
        triton.step(there, [given], None, zero_grad=True)
        assert not any(bool(grad.any()) for grad in tensors)
        if not skip:
            for model, grad in zip(mirrored.models, grads, strict=True):
                model.step(grad, scalars)
        mirrored.check(f"at step {step}")


def test_a_learning_rate_of_zero_on_the_device_moves_nothing() -> None:
    mirrored = Mirrored([(1, 300)], "float32", PLAIN)
    before = mirrored.bucket.params[0].clone()
    grad = torch.full((1, 300), float("nan"), device=DEVICE)
    triton.take(mirrored.prepared, [grad])
    triton.step(mirrored.prepared, [on_device(StepScalars.of(Hyper(lr=0.0), 1), 1)])
    assert torch.equal(mirrored.bucket.params[0], before)
    assert mirrored.bucket.states[0]["exp_avg"].isnan().all()


def test_who_has_no_gradient_rests_and_its_average_goes_on() -> None:
    scalars = StepScalars.of(Hyper(ema_decay=0.5), 2)
    for extras in ((), ("ema",)):
        mirrored = Mirrored([(40,), (300,), (7,)], "float32", PLAIN, extras)
        grads: list[Any] = [torch.from_numpy(grad).to(DEVICE) for grad in mirrored.grads()]
        model = mirrored.models[1]
        for i in (0, 2):
            mirrored.models[i].step(grads[i].cpu().numpy(), scalars)
        if extras:
            model.average(scalars)
        triton.take(mirrored.prepared, [grads[0], None, grads[2]])
        triton.step(mirrored.prepared, [scalars if extras else StepScalars.of(Hyper(), 2)])
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


MISMATCHES: dict[str, Any] = {
    "a gradient of another shape": lambda m, grads: grads.__setitem__(0, torch.zeros(301, device=DEVICE)),
    "a gradient of another dtype": lambda m, grads: grads.__setitem__(0, torch.zeros(300, device=DEVICE).double()),
    "a moment too short": lambda m, grads: m.bucket.states[0].__setitem__("exp_avg", torch.zeros(299, device=DEVICE)),
    "a moment missing": lambda m, grads: m.bucket.states[1].pop("exp_avg_sq"),
    "a moment of another dtype": lambda m, grads: m.bucket.states[0].__setitem__(
        "exp_avg", torch.zeros(300, device=DEVICE, dtype=torch.float16)
    ),
    "a parameter of another shape": lambda m, grads: m.bucket.params[0].resize_(100),
}


@pytest.mark.parametrize("wrong", MISMATCHES)
@pytest.mark.parametrize("known", [False, True])
def test_what_does_not_fit_is_refused_before_anything_is_written(wrong: str, known: bool) -> None:
    """Also where the bucket was stepped before."""
    mirrored = Mirrored([(300,), (7,)], "float32", PLAIN)
    if known:
        mirrored.step([StepScalars.of(Hyper(), 1)])
    grads = [torch.from_numpy(grad).to(DEVICE) for grad in mirrored.grads()]
    second = mirrored.bucket.params[1].clone()
    MISMATCHES[wrong](mirrored, grads)
    with pytest.raises(MismatchError):
        triton.take(mirrored.prepared, grads)
    assert torch.equal(mirrored.bucket.params[1], second)


def test_moments_that_moved_are_found() -> None:
    mirrored = Mirrored([(300,), (7,)], "float32", PLAIN)
    mirrored.step([StepScalars.of(Hyper(), 1)])
    mirrored.bucket.states[0]["exp_avg"] = mirrored.bucket.states[0]["exp_avg"].clone()
    mirrored.bucket.params[1].data = mirrored.bucket.params[1].data.clone()
    mirrored.step([StepScalars.of(Hyper(), 2)])
    mirrored.check()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"dtype": torch.float64, "grad_dtype": torch.float64}, "float64 has no Triton kernel"),
        ({"dtype": torch.complex64, "grad_dtype": torch.complex64}, "complex64 has no Triton kernel"),
        ({"grad_dtype": torch.bfloat16}, "the gradient is"),
        ({"plain": False}, "subclass"),
        ({"device": "mps"}, "on mps"),
        ({"storage": Storage("float16")}, "float16 moments"),
        ({"storage": Storage("packed16"), "row_major": False}, "row-major"),
        ({"differentiable": True}, "autograd"),
    ],
)
def test_refusals_give_their_reason(changed: dict[str, Any], reason: str) -> None:
    usual: dict[str, Any] = dict.fromkeys(("dtype", "grad_dtype"), torch.float32) | {"device": DEVICE}
    traits = Traits(**{**usual, "plain": True, "dense": True, "host_scalars": True, **changed})
    assert reason in (triton.refuses(traits) or "")
    assert triton.refuses(Traits(**usual, plain=True, dense=True, host_scalars=False)) is None


@pytest.mark.skipif(INTERPRETED, reason="needs 20 GB of a GPU's memory")
@pytest.mark.parametrize("storage", [Storage("packed16"), PLAIN], ids=str)
def test_more_elements_than_31_bits_count(storage: Storage) -> None:
    """Elements beyond 2**31, and beyond 2**32 in the count of random bits, are stepped as they are alone."""
    rows, columns = 2**16 + 3, 2**15
    if torch.cuda.mem_get_info()[0] < 5 * rows * columns * 4:
        pytest.skip("the GPU has too little memory")
    scalars = StepScalars.of(Hyper(lr=0.1), 1, seed=3)
    big = torch.zeros(rows, columns, device=DEVICE)
    grad = torch.randn(1, columns, device=DEVICE).expand(rows, columns).clone()
    from adamas.torch.state import conform

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
