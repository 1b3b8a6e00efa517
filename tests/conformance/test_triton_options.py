"""The Triton kernel's options, scalars and checks: what a launch is given, on a GPU or through the interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adamas.formats.random_bits import Place
from adamas.kernels import triton
from adamas.kernels.bucket import PLAIN, Bucket, MismatchError, Storage, Traits
from adamas.scalars import Hyper, StepScalars
from tests.conformance.cases import CASES, Case
from tests.conformance.mirrored import DEVICE, DTYPES, NEEDS_A_GPU, Mirrored
from tests.conformance.test_stored_native import HYPERS
from tests.conftest import INTERPRETED

pytestmark = NEEDS_A_GPU


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_option_gives_the_specifications_bits(case: Case, dtype: str) -> None:
    """Amsgrad, averages, conventions of decay and epsilon, learning rates of 0: with 16-bit weights to nearest."""
    extras = (*(("max_exp_avg_sq",) if case.amsgrad else ()), *(("ema",) if case.averages else ()))
    mirrored = Mirrored([(3, 5, 7)] if INTERPRETED else [(97,), (70_001,), (300, 64)], dtype, PLAIN, extras)
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


@pytest.mark.parametrize("storage", [Storage("packed16", 24, True), Storage("bfloat16", None, True)], ids=str)
def test_a_shard_gets_the_bits_of_the_whole(storage: Storage) -> None:
    """Random bits follow an element's index in the whole parameter, of which a shard has some rows and columns."""
    rows, columns = (3, 512) if INTERPRETED else (5, 1024)
    whole, hyper = Mirrored([(rows, columns)], "bfloat16", storage), HYPERS["adamw"]

    def cut(tensor: torch.Tensor, begin: int, end: int) -> torch.Tensor:
        size = tensor.shape[1] / columns  # words have as many columns as the parameter, scales fewer
        part = tensor[rows - 2 :, int(begin * size) : int(end * size)]
        return part.clone(memory_format=torch.contiguous_format)

    shards = []
    for ends in ((0, columns // 2), (columns // 2, columns), (0, columns)):
        width = ends[1] - ends[0]
        place = Place((rows - 2) * columns + ends[0], width, columns - width)
        param = cut(whole.bucket.params[0], *ends)
        state = {name: cut(x, *ends) for name, x in whole.bucket.states[0].items()}
        shards.append((ends, param, state, triton.prepare(Bucket([param], [state], storage, places=[place]))))
    for number in (1, 2):
        scalars = [StepScalars.of(hyper, number, seed=3)]
        (grad,) = whole.step(scalars)
        for ends, param, state, shard in shards:
            triton.take(shard, [cut(grad, *ends)])
            triton.step(shard, scalars)
            assert torch.equal(param, cut(whole.bucket.params[0], *ends)), ends
            for name, tensor in whole.bucket.states[0].items():
                assert torch.equal(state[name], cut(tensor, *ends)), (name, ends)


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


def transposed(m: Mirrored) -> None:
    m.bucket.params[0].data = m.bucket.params[0].data.t()


def of_another_shape(m: Mirrored) -> None:
    m.bucket.params[0].data = m.bucket.params[0].data.reshape(10, 40)


def another_dtype_at_the_address(m: Mirrored) -> None:
    m.bucket.params[0].data = m.bucket.params[0].data.view(torch.int32)


def another_state_at_the_address(m: Mirrored) -> None:
    state = m.bucket.states[0]
    state["exp_avg"] = state["exp_avg"].view(-1)


def a_view_of_another_dtype_as_state(m: Mirrored) -> None:
    state = m.bucket.states[0]
    state["exp_avg_sq"] = state["exp_avg_sq"].view(torch.int32)


CHANGES = {
    "param.data = param.data.t()": transposed,
    "param.data of another shape": of_another_shape,
    "param.data of another dtype": another_dtype_at_the_address,
    "param resized to less": lambda m: m.bucket.params[0].resize_(19, 20),
    "param resized to as many": lambda m: m.bucket.params[0].resize_(40, 10),
    "another state at the address": another_state_at_the_address,
    "a state of another dtype at the address": a_view_of_another_dtype_as_state,
    "a state resized to less": lambda m: m.bucket.states[0]["exp_avg"].resize_(5),
    "a state transposed in place": lambda m: m.bucket.states[0]["exp_avg"].transpose_(0, 1),
    "a state of another shape": lambda m: m.bucket.states[0]["exp_avg"].resize_(40, 10),
}


@pytest.mark.parametrize("storage", [PLAIN, Storage("packed16")], ids=str)
@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_without_moving_is_found(change: str, storage: Storage) -> None:
    """Addresses and counts stay, or room is left: what lies beyond would be read and written."""
    mirrored = Mirrored([(20, 20), (7,)], "float32", storage)
    triton.take(mirrored.prepared, [torch.ones_like(param) for param in mirrored.bucket.params])
    triton.release(mirrored.prepared)
    if not storage.plain:
        states = mirrored.bucket.states[0]
        states |= {"exp_avg": states["packed16"], "exp_avg_sq": states["exp_avg_scale"]}
    before = mirrored.bucket.params[1].clone()
    CHANGES[change](mirrored)
    if not storage.plain:
        states |= {"packed16": states.pop("exp_avg"), "exp_avg_scale": states.pop("exp_avg_sq")}
    grads = [torch.ones_like(param) for param in mirrored.bucket.params]
    with pytest.raises(MismatchError):
        triton.take(mirrored.prepared, grads)
    assert torch.equal(mirrored.bucket.params[1], before)


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
