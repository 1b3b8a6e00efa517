"""Whatever happens to a state's tensors between two steps, the native kernel is right or refuses: it never reads or
writes memory that it has not checked.

The way to change a tensor is a parameter, and so is the storage: a new one of either is a line.
"""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from adamas.kernels import native
from adamas.kernels.bucket import Bucket, MismatchError, Storage, state_names
from adamas.scalars import Hyper, StepScalars
from adamas.state.conform import conform
from tests.conftest import needs_native

pytestmark = needs_native

STORAGES = {
    "plain": ("float32", Storage()),
    "double": ("float64", Storage()),
    "bfloat16": ("float32", Storage("bfloat16")),
    "packed16": ("float32", Storage("packed16")),
    "packed12": ("float32", Storage("packed12")),
    "master24": ("bfloat16", Storage("packed16", 24, True)),
    "master32": ("bfloat16", Storage("wide", 32)),
}
SCALARS = StepScalars.of(Hyper(weight_decay=0.1, decay="lr", ema_decay=0.9), 5, seed=3)


class Subclass(Tensor):
    pass


def table_of(name: str, storage: Storage, state: dict[str, Any]) -> Any:
    extras = [key for key in ("ema", "max_exp_avg_sq") if key in state]
    names = [*state_names("max_exp_avg_sq" in extras, "ema" in extras, storage)]
    return native._native.Table(names, storage.moments, storage.master_bits or 0, storage.stochastic, True)


def bucket_of(kind: str) -> Bucket:
    """A square parameter, whose transpose has the same shape, large enough to be packed, after one step."""
    dtype, storage = STORAGES[kind]
    torch.manual_seed(0)
    param = torch.nn.Parameter(torch.randn(64, 64).to(getattr(torch, dtype)))
    param.grad = torch.randn(64, 64).to(param.dtype)
    state = conform({}, param, storage, ("ema",), "parameter")
    state["step"] = torch.zeros(())
    bucket = Bucket([param], [state], storage, averages=True)
    stepped(prepared_of(bucket))
    return bucket


def large_bucket(elements: int) -> Bucket:
    """Four parameters that a step takes long enough over for another thread to meet it."""
    params = [torch.nn.Parameter(torch.randn(elements)) for _ in range(4)]
    for param in params:
        param.grad = torch.randn_like(param)
    return Bucket(params, [{key: torch.zeros(elements) for key in ("exp_avg", "exp_avg_sq")} for _ in params])


def prepared_of(bucket: Bucket) -> native.Prepared:
    prepared = native.prepare(bucket)
    storage = bucket.storage
    names = list(state_names(bucket.amsgrad, bucket.averages, storage))
    prepared.table = native._native.Table(
        names, storage.moments, storage.master_bits or 0, storage.stochastic, counts=True
    )
    return prepared


def stepped(prepared: native.Prepared) -> None:
    native.take(prepared)
    native.upcoming(prepared)
    native.step(prepared, [SCALARS])


def everything(bucket: Bucket) -> list[Tensor]:
    return [*bucket.params, *(x for state in bucket.states for x in state.values())]


def copied(bucket: Bucket) -> Bucket:
    params = [torch.nn.Parameter(param.detach().clone()) for param in bucket.params]
    for mine, theirs in zip(params, bucket.params, strict=True):
        mine.grad = None if theirs.grad is None else theirs.grad.clone()
    states = [{key: x.clone() for key, x in state.items()} for state in bucket.states]
    return Bucket(params, states, bucket.storage, averages=bucket.averages)


def at_the_same_address(x: Tensor) -> Tensor:
    """A shorter tensor that begins where a longer one did."""
    return torch.empty(0, dtype=x.dtype).set_(x.untyped_storage(), 0, (max(x.numel() - 200, 0),))


REPLACEMENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "clone": torch.clone,
    "shorter": at_the_same_address,
    "slice": lambda x: x[:3] if x.dim() else x[None][:0],
    "flat": lambda x: x.view(-1),
    "transposed": lambda x: x.t() if x.dim() == 2 else x[None, None],
    "integers": lambda x: x.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]),
    "bytes": lambda x: x.view(-1).view(torch.uint8),
    "negated": lambda x: torch._neg_view(x) if x.is_floating_point() else x[:0],
    "subclass": lambda x: x.as_subclass(Subclass),
    "wider": lambda x: x.double(),
    "expanded": lambda x: x.view(-1)[:1].expand(x.shape) if x.numel() > 1 else x.expand(2),
    "gaps": lambda x: torch.stack([x, x], -1)[..., 0],
    "elsewhere": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse() if x.dim() and x.is_floating_point() else x.to("meta"),
    "freed": lambda x: torch.empty_like(x).set_(),  # pyright: ignore[reportCallIssue]
}


def swapped(x: Tensor, other: Tensor) -> None:
    torch.utils.swap_tensors(x, other)


MUTATIONS: dict[str, Callable[[Tensor], Any]] = {
    "resized storage": lambda x: x.untyped_storage().resize_(0),
    "short storage": lambda x: x.untyped_storage().resize_(x.untyped_storage().nbytes() // 2),
    "resized": lambda x: x.resize_(3, 5),
    "grown": lambda x: x.resize_(100, 100).zero_(),
    "transposed in place": lambda x: x.t_() if x.dim() == 2 else x.unsqueeze_(0).unsqueeze_(0),
    "squeezed": lambda x: x.unsqueeze_(0),
    **{
        f"data {name}": lambda x, make=make: setattr(x, "data", make(x.data))
        for name, make in REPLACEMENTS.items()
        # `data` cannot be of another kind. Of a negated view in the same memory nothing that a step looks at differs,
        # and it takes two private steps to come there.
        if name not in ("elsewhere", "sparse", "subclass", "negated")
    },
    **{
        f"swapped {name}": lambda x, make=make: swapped(x, make(x.data))
        for name, make in REPLACEMENTS.items()
        if name != "subclass"  # classes with other slots cannot be swapped
    },
}


def give_gradient(param: Tensor) -> None:
    """A gradient if it can have one; without, only its average goes on."""
    if param.grad is None or param.grad.shape != param.shape:
        try:
            param.grad = torch.ones(param.shape, dtype=param.dtype)
        except (RuntimeError, TypeError):
            param.grad = None


def check(bucket: Bucket, prepared: native.Prepared) -> None:
    """Step a bucket after it was changed: as a new table would, or not at all."""
    ordinary = [x for x in everything(bucket) if has_memory(x) and x.device.type == "cpu" and not x.is_sparse]
    before = [x.detach().clone() for x in ordinary]
    try:
        mirror: Bucket | None = copied(bucket) if all(map(has_memory, everything(bucket))) else None
        if mirror is not None:
            stepped(prepared_of(mirror))
    except (ValueError, RuntimeError, NotImplementedError):
        mirror = None  # cannot be copied, or does not fit
    try:
        stepped(prepared)
    except ValueError:
        for old, new in zip(before, ordinary, strict=True):
            assert torch.equal(plain_bits(old), plain_bits(new)), "written before it was refused"
        return
    assert mirror is not None, "a tensor that does not fit was stepped"
    for mine, other in zip(everything(bucket), everything(mirror), strict=True):
        assert torch.equal(plain_bits(mine), plain_bits(other))


def has_memory(x: Tensor) -> bool:
    """Whether the elements lie in the storage: else torch itself reads what is not its own."""
    if x.device.type == "meta" or x.layout is not torch.strided:
        return True
    return x.untyped_storage().nbytes() >= (x.storage_offset() + x.numel()) * x.element_size()


def plain_bits(x: Tensor) -> Tensor:
    return x.detach().resolve_neg().contiguous().view(-1).view(torch.uint8)


def parts_of(kind: str) -> list[str]:
    return ["param", *state_names(False, True, STORAGES[kind][1]), "step"]


EVERY_PART = [(kind, part) for kind in STORAGES for part in parts_of(kind)]


@pytest.mark.parametrize(("kind", "part"), EVERY_PART, ids=str)
def test_a_replaced_tensor_is_checked(kind: str, part: str) -> None:
    for name, make in REPLACEMENTS.items():
        bucket = bucket_of(kind)
        prepared = prepared_of(bucket)
        stepped(prepared)
        target = bucket.states[0] if part != "param" else bucket.params
        key: Any = part if part != "param" else 0
        with torch.no_grad():
            new = make(target[key].detach())
        target[key] = new
        give_gradient(bucket.params[0])
        try:
            check(bucket, prepared)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


@pytest.mark.parametrize(("kind", "part"), EVERY_PART, ids=str)
def test_a_tensor_changed_in_place_is_checked(kind: str, part: str) -> None:
    for name, change in MUTATIONS.items():
        bucket = bucket_of(kind)
        prepared = prepared_of(bucket)
        stepped(prepared)
        x = bucket.states[0][part] if part != "param" else bucket.params[0]
        try:
            with torch.no_grad():
                change(x)
        except (RuntimeError, TypeError):
            continue  # torch refuses
        give_gradient(bucket.params[0])
        try:
            check(bucket, prepared)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def test_memory_reused_at_the_same_address_is_checked() -> None:
    """A shorter moment that torch's allocator puts where the old one was: once a write beyond its end."""
    bucket = bucket_of("plain")
    prepared = prepared_of(bucket)
    stepped(prepared)
    for _ in range(20):
        del bucket.states[0]["exp_avg"]
        bucket.states[0]["exp_avg"] = torch.zeros(64 * 64 - 200)
        with pytest.raises(MismatchError, match="exp_avg 0"):
            native.take(prepared)


def test_a_check_that_failed_half_way_leaves_nothing_believed() -> None:
    """The moments fit the transposed parameter; when it is turned back, they no longer do."""
    bucket = bucket_of("plain")
    prepared, state = prepared_of(bucket), bucket.states[0]
    stepped(prepared)
    param = bucket.params[0]
    turned = param.data.t()
    old, param.data = param.data, turned
    kept = state["exp_avg"]
    state["exp_avg"] = kept.t()
    with pytest.raises(MismatchError):  # exp_avg fits now, exp_avg_sq does not
        native.take(prepared)
    param.data = old
    with pytest.raises(MismatchError):
        native.take(prepared)
    state["exp_avg"] = kept
    native.take(prepared)


def test_a_state_assigned_by_another_thread_stays_alive_while_it_is_written() -> None:
    """The step runs without the GIL; memory it writes may have no other owner any more."""
    bucket = large_bucket(400_000)
    prepared = native.prepare(bucket)
    done = threading.Event()

    def assign() -> None:
        while not done.is_set():
            for state in bucket.states:
                state["exp_avg"] = torch.zeros(400_000)

    thread = threading.Thread(target=assign)
    thread.start()
    try:
        for _ in range(100):
            native.take(prepared)
            native.step(prepared, [StepScalars.of(Hyper(), 3)])
    finally:
        done.set()
        thread.join()


def test_a_second_thread_is_refused_while_one_is_inside() -> None:
    bucket = large_bucket(1_000_000)
    prepared = native.prepare(bucket)
    refused: list[str] = []
    barrier = threading.Barrier(2)

    def work() -> None:
        barrier.wait()
        for _ in range(40):
            try:
                native.take(prepared)
                native.step(prepared, [StepScalars.of(Hyper(), 3)])
            except (RuntimeError, native._native.Mismatch) as error:
                refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any("another thread" in each for each in refused)
    native.take(prepared)
    native.step(prepared, [StepScalars.of(Hyper(), 3)])


def test_a_table_in_a_cycle_is_collected() -> None:
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    bucket = Bucket([param], [{key: torch.zeros(3) for key in ("exp_avg", "exp_avg_sq")}])
    prepared = native.prepare(bucket)
    native.take(prepared)
    native.step(prepared, [StepScalars.of(Hyper(), 1)])
    param.optimizer = prepared  # pyright: ignore[reportAttributeAccessIssue]
    watch = weakref.ref(param)
    del param, bucket, prepared
    gc.collect()
    assert watch() is None


def test_gradients_are_let_go() -> None:
    bucket = bucket_of("plain")
    prepared = prepared_of(bucket)
    for finish in (lambda: native.step(prepared, [SCALARS]), lambda: native.release(prepared)):
        bucket.params[0].grad = torch.ones(64, 64)
        native.take(prepared)
        watch = weakref.ref(bucket.params[0].grad)
        bucket.params[0].grad = None
        gc.collect()
        assert watch() is not None
        finish()
        gc.collect()
        assert watch() is None
    wrong = torch.ones(3)
    watch = weakref.ref(wrong)
    with pytest.raises(MismatchError):
        native.take(prepared, [wrong])
    del wrong
    gc.collect()
    assert watch() is None


def counted(count: int, counts: list[float]) -> tuple[Bucket, native.Prepared]:
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(count)]
    for param in params:
        param.grad = torch.ones(3)
    states: list[dict[str, Any]] = [
        {"step": torch.tensor(steps), "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)} for steps in counts
    ]
    bucket = Bucket(params, states)
    return bucket, prepared_of(bucket)


def test_steps_are_counted_in_place() -> None:
    bucket, prepared = counted(4, [3.0, 3.0, 3.0, 3.0])
    tensors = [state["step"] for state in bucket.states]
    native.take(prepared)
    assert native.upcoming(prepared) == ([4], None)
    native.step(prepared, [SCALARS._replace(average=0.0)])
    assert [float(x) for x in tensors] == [4, 4, 4, 4]
    bucket.params[1].grad = None
    native.take(prepared)
    assert native.upcoming(prepared) == ([5], None)
    native.step(prepared, [SCALARS._replace(average=0.0)])
    assert [float(x) for x in tensors] == [5, 4, 5, 5]
    bucket.params[1].grad = torch.ones(3)
    tensors[3].fill_(100)  # by whoever has it
    native.take(prepared)
    numbers, which = native.upcoming(prepared)
    assert [numbers[i] for i in which or []] == [6, 5, 6, 101]
    assert len(numbers) == 3
    native.step(prepared, [SCALARS._replace(average=0.0)] * 3, which)
    assert [float(x) for x in tensors] == [6, 5, 6, 101]
    assert all(state["step"] is x for state, x in zip(bucket.states, tensors, strict=True))
    native.take(prepared)
    native.release(prepared)
    assert [float(x) for x in tensors] == [6, 5, 6, 101], "a step that was not taken is not counted"


def test_counting_goes_on_where_float32_stops() -> None:
    bucket, prepared = counted(1, [2.0**24 - 2])
    for step in range(6):
        native.take(prepared)
        assert native.upcoming(prepared) == ([2**24 - 1 + step], None)
        native.step(prepared, [SCALARS._replace(average=0.0)])
        assert bucket.states[0]["step"] == torch.tensor(float(2**24 - 1 + step))
    bucket.states[0]["step"].fill_(7)
    native.take(prepared)
    assert native.upcoming(prepared) == ([8], None)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), -float("inf"), 2.0**53])
def test_what_is_no_number_of_steps_is_refused(value: float) -> None:
    bucket, prepared = counted(2, [1.0, value])
    before = copy.deepcopy(everything(bucket))
    with pytest.raises(ValueError, match="parameter 1 must be a number of steps"):
        native.take(prepared)
    assert all(torch.equal(a, b) or a.isnan() for a, b in zip(before, everything(bucket), strict=True))


@pytest.mark.parametrize(
    "wrong", [torch.ones((), dtype=torch.float64), torch.ones((), dtype=torch.int64), torch.ones(2), torch.ones(0),
              torch.ones((), device="meta")]
)  # fmt: skip
def test_another_kind_of_count_is_a_mismatch(wrong: Tensor) -> None:
    bucket, prepared = counted(2, [1.0, 1.0])
    bucket.states[1]["step"] = wrong
    with pytest.raises(MismatchError, match="step 1"):
        native.take(prepared)
    del bucket.states[1]["step"]
    with pytest.raises(MismatchError, match="step 1 is missing"):
        native.take(prepared)


def test_nobody_with_a_gradient_counts_nothing() -> None:
    bucket, prepared = counted(2, [1.0, 2.0])
    for param in bucket.params:
        param.grad = None
    native.take(prepared)
    numbers, which = native.upcoming(prepared)
    assert len(numbers) == 1
    assert which is None
    native.step(prepared, [SCALARS._replace(average=0.0)])
    assert [float(state["step"]) for state in bucket.states] == [1, 2]
