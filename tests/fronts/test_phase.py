"""The optimizer phase in one pass: clip, unscale, step, average, zero; and what it does with gradients not finite."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils._python_dispatch import TorchDispatchMode

from adamas import reference
from adamas.scalars import Hyper
from adamas.torch import Adam, AdamW
from adamas.torch.plan import Plan
from tests.conformance.test_accuracy import ulp
from tests.conftest import KERNELS, needs_native

SHAPES = [(4, 3), (5,), (), (2, 2, 3), (97,), (64, 70)]
on_kernels = pytest.mark.parametrize("kernel", KERNELS)
# (clips always, sometimes, never)
MAX_NORMS = [0.5, 68.0, 1e6]


def drawn(dtype: torch.dtype = torch.float64, seed: int = 1) -> list[torch.nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=random, dtype=torch.float64).to(dtype)) for shape in SHAPES]


def give(params: list[torch.nn.Parameter], step: int, scale: float = 1.0) -> None:
    """Gradients that depend on the step alone, of the parameters' dtype."""
    random = torch.Generator().manual_seed(100 + step)
    for param in params:
        grad = torch.randn(param.shape, generator=random, dtype=torch.float64)
        param.grad = (grad * scale).to(param.dtype)


def everything(params: list[torch.nn.Parameter], optimizer: Any) -> list[torch.Tensor]:
    """All that a step may change, as copies."""
    states = [value for param in params for value in optimizer.state.get(param, {}).values()]
    return [tensor.detach().clone() for tensor in [*params, *states, *(param.grad for param in params)]]


def identical(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return len(a) == len(b) and all(
        torch.equal(x.view(words[x.element_size()]), y.view(words[y.element_size()])) for x, y in zip(a, b, strict=True)
    )


class Composition:
    """clip_grad_norm_, torch's AdamW, an average by lerp, zero_grad: the passes that ours are one of."""

    def __init__(self, params: list[torch.nn.Parameter], max_norm: float, ema_decay: float, **options: Any) -> None:
        self.params, self.max_norm, self.weight = params, max_norm, 1 - ema_decay
        self.optimizer = torch.optim.AdamW(params, **options)
        self.averages: list[torch.Tensor] = []

    def step(self) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.params, self.max_norm)
        self.optimizer.step()
        with torch.no_grad():
            if self.averages:
                torch._foreach_lerp_(self.averages, self.params, self.weight)
            else:
                self.averages = [param.detach().clone() for param in self.params]
        self.optimizer.zero_grad()
        return float(norm)


@on_kernels
@pytest.mark.parametrize("foreach", [None, True])
@pytest.mark.parametrize("max_norm", MAX_NORMS)
def test_one_pass_equals_the_composition_in_float64(kernel: str, foreach: bool | None, max_norm: float) -> None:
    if kernel == "native" and foreach:
        pytest.skip("foreach demands eager")
    params, theirs = drawn(), drawn()
    options = {"lr": 1e-2, "weight_decay": 0.1}
    ours = AdamW(params, max_norm=max_norm, ema_decay=0.9, kernel=kernel, foreach=foreach, **options)
    composed = Composition(theirs, max_norm, 0.9, **options)
    for step in range(300):
        give(params, step)
        give(theirs, step)
        ours.step(zero_grad=True)
        assert ours.grad_norm == pytest.approx(composed.step(), rel=1e-12)
        assert all(param.grad is None for param in params)
    for mine, other, average in zip(params, theirs, composed.averages, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours.state[mine]["ema"], average, rtol=1e-12, atol=1e-12)


@on_kernels
@pytest.mark.parametrize("optimizer_class", [Adam, AdamW])
def test_one_pass_equals_the_reference(kernel: str, optimizer_class: type[Adam]) -> None:
    params = drawn()
    optimizer = optimizer_class(params, lr=1e-2, weight_decay=0.1, max_norm=1.0, ema_decay=0.95, kernel=kernel)
    hyper = Hyper(lr=1e-2, weight_decay=0.1, decay="lr" if optimizer_class is AdamW else "l2")
    thetas = [param.detach().numpy().copy() for param in params]
    states, averages = [reference.init(theta) for theta in thetas], list[np.ndarray]()
    for step in range(100):
        give(params, step)
        clipped = reference.clip([param.grad.numpy() for param in params], 1.0)
        pairs = [reference.step(*each, hyper) for each in zip(thetas, clipped, states, strict=True)]
        thetas, states = [theta for theta, _ in pairs], [state for _, state in pairs]
        known = zip(averages or thetas, thetas, strict=True)
        averages = [reference.average(bar, theta, 0.95) for bar, theta in known]
        optimizer.step()
    for param, theta, average in zip(params, thetas, averages, strict=True):
        np.testing.assert_allclose(param.detach().numpy(), theta, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(optimizer.state[param]["ema"].numpy(), average, rtol=1e-12, atol=1e-12)


@on_kernels
@pytest.mark.parametrize("max_norm", MAX_NORMS)
def test_a_float32_phase_is_within_its_budget(kernel: str, max_norm: float) -> None:
    """Against float64 on the same float32 inputs, ULPs of the operands as in test_accuracy.

    Clipping multiplies g by a factor rounded once and rounds the product: 1 ULP of g more. m takes (1 - beta1) of it
    and v 2 (1 - beta2) of it, which with beta1 = .9 leaves both within 2 ULP of max(|m|, |g|) and max(v, g^2). The
    parameter moves by at most lr u, whose relative error is a few ULP of it: 2 ULP of the largest of |theta|, |lr u|.
    """
    params = drawn(torch.float32)
    optimizer = AdamW(params, lr=1e-3, max_norm=max_norm, ema_decay=0.9, kernel=kernel)
    for step in range(20):
        give(params, step)
        optimizer.step()
    give(params, 20)
    hyper = Hyper(lr=1e-3, weight_decay=1e-2, decay="lr")
    clipped = reference.clip([param.grad.double().numpy() for param in params], max_norm)
    wanted = []
    for param, g in zip(params, clipped, strict=True):
        m, v, ema = (optimizer.state[param][key].double().numpy().copy() for key in ("exp_avg", "exp_avg_sq", "ema"))
        state = reference.State(m, v, np.zeros_like(m), 20)
        wanted.append((*reference.step(param.detach().double().numpy(), g, state, hyper), ema, g, m))
    optimizer.step()
    for param, (theta, after, ema, g, m) in zip(params, wanted, strict=True):
        got = {key: optimizer.state[param][key].double().numpy() for key in ("exp_avg", "exp_avg_sq", "ema")}
        stored = param.detach().double().numpy()
        m_size = np.maximum.reduce([np.abs(m), np.abs(after.m), np.abs(g)])
        assert (np.abs(got["exp_avg"] - after.m) <= 2 * ulp(m_size, torch.float32)).all()
        assert (np.abs(got["exp_avg_sq"] - after.v) <= 2 * ulp(np.maximum(after.v, g**2), torch.float32)).all()
        assert (np.abs(stored - theta) <= 2 * ulp(np.maximum(np.abs(theta), 1e-3), torch.float32)).all()
        average = reference.average(ema, stored, 0.9)
        assert (np.abs(got["ema"] - average) <= 2 * ulp(np.maximum(np.abs(ema), np.abs(stored)), torch.float32)).all()


def trained(order: list[int], groups: int, kernel: str, threads: int = 1) -> tuple[list[torch.Tensor], list[Any]]:
    """Six steps with the parameters in an order and in a number of groups; results in the original order."""
    params = drawn(torch.float32)
    params[5] = torch.nn.Parameter(torch.linspace(-1, 1, 200_000).view(400, 500))
    arranged = [params[i] for i in order]
    cut = -(-len(arranged) // groups)
    parts = [{"params": arranged[i : i + cut]} for i in range(0, len(arranged), cut)]
    optimizer = AdamW(parts, lr=1e-2, max_norm=1.0, ema_decay=0.9, kernel=kernel)
    norms = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for step in range(6):
            give(params, step)
            optimizer.step()
            norms.append(optimizer.grad_norm)
    finally:
        torch.set_num_threads(before)
    return [tensor for param in params for tensor in (param.detach(), optimizer.state[param]["ema"])], norms


@on_kernels
def test_order_groups_and_threads_do_not_change_bits(kernel: str) -> None:
    plain, norms = trained([0, 1, 2, 3, 4, 5], 1, kernel)
    for order, groups, threads in [([5, 3, 1, 0, 2, 4], 1, 1), ([0, 1, 2, 3, 4, 5], 3, 1), ([4, 5, 2, 0, 1, 3], 6, 1)]:
        got, others = trained(order, groups, kernel, threads)
        assert others == norms
        assert identical(got, plain)
    if kernel == "native":  # torch's own reductions, on which eager stands, may depend on the threads
        for threads in (2, 3, 7):
            got, others = trained([0, 1, 2, 3, 4, 5], 1, kernel, threads)
            assert others == norms
            assert identical(got, plain)


@on_kernels
@pytest.mark.parametrize("skips", [False, True])
def test_grad_norm(kernel: str, skips: bool) -> None:
    """What clip_grad_norm_ returns, measured without clipping by max_norm=inf and by skip_nonfinite."""
    params, plain = drawn(torch.float32), drawn(torch.float32)
    options: dict[str, Any] = {"skip_nonfinite": True} if skips else {"max_norm": math.inf}
    optimizer, other = AdamW(params, kernel=kernel, **options), AdamW(plain, kernel=kernel)
    assert optimizer.grad_norm is None
    for step in range(3):
        give(params, step)
        give(plain, step)
        kept = [param.grad for param in params]
        optimizer.step()
        other.step()
        assert identical([param.detach() for param in params], [param.detach() for param in plain])
        assert all(param.grad is grad for param, grad in zip(params, kept, strict=True))
        want = torch.nn.utils.get_total_norm([grad.double() for grad in kept])
        assert optimizer.grad_norm == pytest.approx(float(want), rel=1e-14)
    with pytest.raises(RuntimeError, match=r"max_norm=math\.inf only measures"):
        _ = other.grad_norm
    optimizer.max_norm, optimizer.skip_nonfinite = None, False
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"max_norm=math\.inf only measures"):  # not an old step's
        _ = optimizer.grad_norm


def test_half_precision_gradients_do_not_overflow_the_norm() -> None:
    """300^2 is beyond float16: torch's norm of a float16 gradient rounds to inf there, and clips everything to 0."""
    param = torch.nn.Parameter(torch.zeros(40_000, dtype=torch.float16))
    optimizer = AdamW([param], lr=0.1, max_norm=1.0)
    param.grad = torch.full_like(param, 500.0)
    optimizer.step()
    assert optimizer.grad_norm == 100_000
    torch.testing.assert_close(param.detach(), torch.full_like(param, -0.1))


# --- gradients that are not finite --------------------------------------------------------------------------------

SPOTS = [(0, 0), (0, 11), (1, 4), (2, 0), (4, 96), (5, 1023), (5, 4479)]  # tensor, element: ends, tails, a 0-d tensor
VALUES = [math.inf, -math.inf, math.nan]


def run_to(steps: int, dtype: torch.dtype, **options: Any) -> tuple[list[torch.nn.Parameter], AdamW]:
    params = drawn(dtype)
    optimizer = AdamW(params, lr=1e-2, ema_decay=0.9, **options)
    for step in range(steps):
        give(params, step)
        optimizer.step()
    give(params, steps)
    return params, optimizer


def spoil(params: list[torch.nn.Parameter], spot: tuple[int, int], value: float) -> None:
    params[spot[0]].grad.view(-1)[spot[1]] = value


@on_kernels
@pytest.mark.parametrize("max_norm", [None, 1.0, math.inf])
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_skipped_step_changes_no_bit(kernel: str, max_norm: float | None, value: float, dtype: torch.dtype) -> None:
    options: dict[str, Any] = {"kernel": kernel, "max_norm": max_norm, "skip_nonfinite": True}
    for spot in SPOTS:
        params, optimizer = run_to(2, dtype, **options)
        good = [param.grad.clone() for param in params]
        spoil(params, spot, value)
        before, state = everything(params, optimizer), optimizer.state_dict()
        for _ in range(2):
            optimizer.step()
        assert identical(everything(params, optimizer), before)
        assert optimizer.state_dict()["state"].keys() == state["state"].keys()
        assert optimizer.skipped_steps == 2
        assert not math.isfinite(optimizer.grad_norm)
        for param, grad in zip(params, good, strict=True):  # and training goes on as if nothing had been
            param.grad = grad
        optimizer.step()
        straight, undisturbed = run_to(2, dtype, **options)
        undisturbed.step()
        assert identical(everything(params, optimizer), everything(straight, undisturbed))
        assert optimizer.skipped_steps == 2


@on_kernels
def test_a_skipped_first_step_leaves_no_state(kernel: str) -> None:
    params, optimizer = run_to(0, torch.float32, skip_nonfinite=True, kernel=kernel)
    spoil(params, (4, 3), math.nan)
    optimizer.step()
    assert not optimizer.state
    assert optimizer.state_bytes() == 0
    give(params, 0)
    optimizer.step()
    straight, undisturbed = run_to(0, torch.float32, skip_nonfinite=True, kernel=kernel)
    undisturbed.step()
    assert identical(everything(params, optimizer), everything(straight, undisturbed))


@on_kernels
@pytest.mark.parametrize("max_norm", [None, math.inf])
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("spot", SPOTS)
def test_without_clipping_a_bad_element_spoils_itself_alone(
    kernel: str, max_norm: float | None, value: float, spot: tuple[int, int]
) -> None:
    """As in torch: every other element has the bits it has when that gradient is good."""
    params, optimizer = run_to(2, torch.float32, kernel=kernel, max_norm=max_norm)
    spoil(params, spot, value)
    optimizer.step()
    others, undisturbed = run_to(2, torch.float32, kernel=kernel, max_norm=max_norm)
    undisturbed.step()
    for index, (param, other) in enumerate(zip(params, others, strict=True)):
        whole = torch.ones(param.numel(), dtype=torch.bool)
        if index == spot[0]:
            whole[spot[1]] = False
        for key in ("param", "exp_avg", "exp_avg_sq", "ema"):
            got, want = (
                (p if key == "param" else o.state[p][key]).detach().view(-1)
                for p, o in ((param, optimizer), (other, undisturbed))
            )
            assert torch.equal(got[whole], want[whole])
            assert not torch.isfinite(got[~whole]).any()
    assert optimizer.skipped_steps == 0


@on_kernels
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("spot", SPOTS)
def test_clipping_passes_a_bad_norm_on_as_torch_does(kernel: str, value: float, spot: tuple[int, int]) -> None:
    """clip_grad_norm_: a NaN spoils everything, an infinity makes every finite gradient 0 and itself NaN."""
    params, optimizer = run_to(2, torch.float32, kernel=kernel, max_norm=1.0)
    theirs = [torch.nn.Parameter(param.detach().clone()) for param in params]
    composed = torch.optim.AdamW(theirs, lr=1e-2)
    saved = copy.deepcopy(optimizer.state_dict())  # which torch would share
    composed.load_state_dict({**saved, "param_groups": composed.state_dict()["param_groups"]})
    give(theirs, 2)
    for each in (params, theirs):
        spoil(each, spot, value)
    optimizer.step()
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    composed.step()
    for param, other in zip(params, theirs, strict=True):
        torch.testing.assert_close(param, other, rtol=1e-6, atol=1e-7, equal_nan=True)
    others, zeroed = run_to(2, torch.float32, kernel=kernel, max_norm=1.0)
    for other in others:
        other.grad.zero_()
    zeroed.step()
    for index, (param, other) in enumerate(zip(params, others, strict=True)):
        spoiled = torch.full((param.numel(),), math.isnan(value))
        if index == spot[0]:
            spoiled[spot[1]] = True
        for key in ("param", "exp_avg", "exp_avg_sq", "ema"):
            got, want = (
                (p if key == "param" else o.state[p][key]).detach().view(-1)
                for p, o in ((param, optimizer), (other, zeroed))
            )
            assert torch.equal(got[~spoiled], want[~spoiled])
            assert got[spoiled].isnan().all()


def test_a_norm_beyond_float64_counts_as_infinite() -> None:
    param = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = AdamW([param], skip_nonfinite=True)
    param.grad = torch.tensor([1e200, 1.0], dtype=torch.float64)
    optimizer.step()
    assert optimizer.skipped_steps == 1
    many = [torch.nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(40)]
    optimizer = AdamW(many, skip_nonfinite=True)
    for each in many:
        each.grad = torch.full((1,), 1e154, dtype=torch.float64)  # each square is finite, their sum is not
    optimizer.step()
    assert optimizer.skipped_steps == 1


# --- loss scaling -------------------------------------------------------------------------------------------------


@needs_native
@pytest.mark.parametrize("fused", [None, True])
def test_grad_scaler_clips_the_unscaled_norm(fused: bool | None) -> None:
    """A scale of 2**10 is undone exactly: the same bits as without a scaler, and an overflow changes none."""
    plain = drawn(torch.float32)
    reference_run = AdamW(plain, lr=1e-2, max_norm=0.5, ema_decay=0.9, kernel="native")
    params = drawn(torch.float32)
    optimizer = AdamW(params, lr=1e-2, max_norm=0.5, ema_decay=0.9, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(torch.ones(()))  # makes its tensors
    for step in range(4):
        give(plain, step)
        reference_run.step()
        if step == 2:
            give(params, step, 2.0**10)
            spoil(params, (3, 2), math.inf)
            before = everything(params, optimizer)
            scaler.step(optimizer)
            assert identical([t for t in everything(params, optimizer)[:-6]], before[:-6])  # unscaling writes .grad
            scaler.update(2.0**10)
            assert optimizer.skipped_steps == bool(fused)  # without fused the scaler does not even call
        give(params, step, 2.0**10)
        scaler.step(optimizer)
        scaler.update(2.0**10)
        assert optimizer.grad_norm == reference_run.grad_norm
    assert identical(
        [t for p in params for t in (p.detach(), optimizer.state[p]["ema"])],
        [t for p in plain for t in (p.detach(), reference_run.state[p]["ema"])],
    )


class NoHostReads(TorchDispatchMode):
    """Fails where the host reads a tensor, which on a device it would have to wait for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        assert "_local_scalar_dense" not in name, "the host read a tensor"
        assert "nonzero" not in name, "the host read a tensor's size"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_a_capturable_step_decides_on_the_device(max_norm: float | None) -> None:
    """Norm, clipping, unscaling, skip and count without the host reading anything, and with the same results."""
    params, mirror = drawn(), drawn()
    common: dict[str, Any] = {"lr": 1e-2, "max_norm": max_norm, "skip_nonfinite": True, "ema_decay": 0.9}
    optimizer = AdamW(params, capturable=True, **common)
    plain = AdamW(mirror, kernel="eager", **common)
    for each in (optimizer, plain):
        each.grad_scale, each.found_inf = torch.tensor(8.0), torch.tensor(0.0)
    for step in range(8):
        for each in (params, mirror):
            give(each, step, 8.0)
            if step == 3:
                spoil(each, (1, 2), math.nan)
            if step == 7:
                spoil(each, (5, 2), -math.inf)
        found = torch.tensor(float(step == 5))
        optimizer.found_inf = plain.found_inf = found
        before = everything(params, optimizer)
        if step == 0:
            optimizer.step()
        else:
            with NoHostReads():
                optimizer.step()
        plain.step()
        if step in (3, 5, 7):
            assert identical(everything(params, optimizer), before)
    assert optimizer.skipped_steps == plain.skipped_steps == 3
    for a, b in zip(params, mirror, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
        for key in ("exp_avg", "exp_avg_sq", "ema", "step"):
            torch.testing.assert_close(optimizer.state[a][key], plain.state[b][key], rtol=1e-12, atol=1e-13)


def test_the_watch_for_host_reads_can_fail() -> None:
    with NoHostReads(), pytest.raises(AssertionError, match="read a tensor"):
        float(torch.ones(()) + 1)


# --- averages -----------------------------------------------------------------------------------------------------


def network() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def batches(count: int) -> list[torch.Tensor]:
    return [torch.randn(16, 6, generator=torch.Generator().manual_seed(i)) for i in range(count)]


@on_kernels
def test_averaged_is_what_swa_utils_keeps(kernel: str) -> None:
    """The weights inside `averaged()` are AveragedModel's, and with update_bn so are the outputs."""
    model = network()
    optimizer = AdamW(model.parameters(), lr=1e-2, ema_decay=0.95, kernel=kernel)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.95))
    for x in batches(30):
        model(x).square().mean().backward()
        optimizer.step(zero_grad=True)
        theirs.update_parameters(model)
    before = [tensor.clone() for tensor in model.parameters()]
    statistics = [buffer.clone() for buffer in model.buffers()]
    update_bn(batches(5), theirs)
    with optimizer.averaged():
        update_bn(batches(5), model)
        for mine, other in zip(model.parameters(), theirs.module.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)
        x = batches(7)[6]
        torch.testing.assert_close(model.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-6)
    assert identical([param.detach() for param in model.parameters()], [param.detach() for param in before])
    assert not all(map(torch.equal, model.buffers(), statistics)), "the model's statistics are now the averages'"


@on_kernels
def test_averaged_gives_the_weights_back_whatever_happens(kernel: str) -> None:
    params, optimizer = run_to(3, torch.bfloat16, kernel=kernel)
    before = everything(params, optimizer)

    def fail() -> None:
        with optimizer.averaged():
            assert torch.equal(params[0].detach(), optimizer.state[params[0]]["ema"].bfloat16())
            params[0].detach().fill_(9.0)  # whatever is done to the weights inside
            raise KeyError("inside")

    with pytest.raises(KeyError):
        fail()
    assert identical(everything(params, optimizer), before)
    with optimizer.averaged():
        with pytest.raises(RuntimeError, match=r"step\(\) inside averaged"):
            optimizer.step()
        with pytest.raises(RuntimeError, match=r"averaged\(\) inside averaged"), optimizer.averaged():
            pass
    optimizer.step()
    with pytest.raises(RuntimeError, match="no weight has an average yet"), AdamW(drawn(), ema_decay=0.9).averaged():
        pass


@on_kernels
def test_averages_travel_in_the_state_dict(kernel: str) -> None:
    params, optimizer = run_to(3, torch.float32, kernel=kernel)
    saved = copy.deepcopy(optimizer.state_dict())
    others = [torch.nn.Parameter(param.detach().clone()) for param in params]
    loaded = AdamW(others, ema_decay=0.9, kernel=kernel)
    loaded.load_state_dict(saved)
    theirs = torch.optim.AdamW([torch.nn.Parameter(param.detach().clone()) for param in params])
    theirs.load_state_dict(saved)  # torch keeps what it does not know
    for each, owned in ((optimizer, params), (loaded, others)):
        give(owned, 3)
        each.step()
    assert identical(everything(params, optimizer), everything(others, loaded))
    plain = AdamW([torch.nn.Parameter(param.detach().clone()) for param in params], kernel=kernel)
    plain.load_state_dict(saved)
    assert plain.param_groups[0]["ema_decay"] is None, "a checkpoint does not switch averaging on"
    with plain.averaged():  # but what it holds can be looked at
        assert torch.equal(plain.param_groups[0]["params"][0].detach(), saved["state"][0]["ema"])


@on_kernels
def test_an_average_that_begins_late_begins_as_a_copy(kernel: str) -> None:
    """From a checkpoint without one, and where ema_decay is set in mid-run."""
    source_params = drawn(torch.float32)
    source = torch.optim.AdamW(source_params, lr=1e-2)
    give(source_params, 0)
    source.step()
    params = [torch.nn.Parameter(param.detach().clone()) for param in source_params]
    optimizer = AdamW(params, ema_decay=0.9, kernel=kernel)
    optimizer.load_state_dict(source.state_dict())
    give(params, 1)
    optimizer.step()
    assert all(torch.equal(optimizer.state[param]["ema"], param.detach()) for param in params)
    first = [param.detach().clone() for param in params]
    give(params, 2)
    optimizer.step()
    for param, begun in zip(params, first, strict=True):
        torch.testing.assert_close(optimizer.state[param]["ema"], torch.lerp(begun, param.detach(), 0.1))
    other = AdamW(drawn(torch.float32), kernel=kernel)
    group = other.param_groups[0]
    for step, ema_decay in enumerate([None, 0.5, 0.5, None]):
        group["ema_decay"] = ema_decay
        give(group["params"], step)
        other.step()
        if step == 1:
            assert all(torch.equal(other.state[param]["ema"], param.detach()) for param in group["params"])
        if step == 3:  # nobody takes a stale average for the weights' later
            assert not any("ema" in other.state[param] for param in group["params"])


@on_kernels
@pytest.mark.parametrize(
    ("dtype", "kept"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
    ids=str,
)
def test_averages_are_float32_or_wider(kernel: str, dtype: torch.dtype, kept: torch.dtype) -> None:
    params, optimizer = run_to(2, dtype, kernel=kernel)
    assert all(optimizer.state[param]["ema"].dtype == kept for param in params)
    count = sum(param.numel() for param in params)
    assert optimizer.state_bytes() == 3 * count * kept.itemsize + 4 * len(params)


def test_groups_may_average_or_not() -> None:
    params = drawn(torch.float32)
    optimizer = AdamW([{"params": params[:2], "ema_decay": 0.9}, {"params": params[2:]}])
    give(params, 0)
    optimizer.step()
    assert ["ema" in optimizer.state[param] for param in params] == [True, True, False, False, False, False]
    give(params, 1)
    optimizer.step()
    before = [param.detach().clone() for param in params]
    with optimizer.averaged():
        moved = [not torch.equal(param.detach(), kept) for param, kept in zip(params, before, strict=True)]
    assert moved == [True, True, False, False, False, False]


# --- zeroing ------------------------------------------------------------------------------------------------------


@on_kernels
@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_are_zeroed_where_they_are(kernel: str, skipped: bool, transposed: bool) -> None:
    """The same tensors, filled with zeros: also those that the kernel had to copy, and in a skipped step."""
    params, optimizer = run_to(1, torch.float32, kernel=kernel, skip_nonfinite=True)
    if transposed:
        params[0].grad = params[0].grad.t().contiguous().t()
    if skipped:
        spoil(params, (1, 1), math.inf)
    grads = [param.grad for param in params]
    versions = [grad._version for grad in grads]
    optimizer.step(zero_grad="in_place")
    assert all(param.grad is grad for param, grad in zip(params, grads, strict=True))
    assert not any(bool(grad.any()) for grad in grads)
    assert all(grad._version > version for grad, version in zip(grads, versions, strict=True)), "autograd was told"
    assert optimizer.skipped_steps == skipped


@on_kernels
def test_gradients_are_left_alone_unless_asked(kernel: str) -> None:
    params, optimizer = run_to(1, torch.float32, kernel=kernel, max_norm=0.1)
    before = [param.grad.clone() for param in params]
    optimizer.step()
    assert identical([param.grad for param in params], before)
    optimizer.step(zero_grad=True)
    assert all(param.grad is None for param in params)
    for nonsense in ("zero", 1, None):
        with pytest.raises(ValueError, match=f"zero_grad={nonsense!r} must be False, True"):
            optimizer.step(zero_grad=nonsense)  # type: ignore[arg-type]


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_does_what_torch_does(set_to_none: bool) -> None:
    params, optimizer = run_to(1, torch.float32)
    params[0].grad = (params[0] * 2).detach().requires_grad_() * 1  # with a history, which zeroing lets go
    params[1].grad = None
    optimizer.zero_grad(set_to_none)
    if set_to_none:
        assert all(param.grad is None for param in params)
    else:
        assert params[1].grad is None
        assert not any(bool(param.grad.any()) for param in params if param.grad is not None)
        assert params[0].grad.grad_fn is None


# --- the interface ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan, "1", True])
def test_a_max_norm_that_makes_no_sense_is_refused(max_norm: Any) -> None:
    with pytest.raises(ValueError, match=r"max_norm=.* must be > 0, or None not to clip"):
        AdamW(drawn(), max_norm=max_norm)
    optimizer = AdamW(drawn(), max_norm=1.0)
    with pytest.raises(ValueError, match="must be > 0"):
        optimizer.max_norm = max_norm
    assert optimizer.max_norm == 1.0


@pytest.mark.parametrize("ema_decay", [1.0, -0.1, math.nan, "0.9", 2])
def test_an_ema_decay_out_of_range_is_refused(ema_decay: Any) -> None:
    with pytest.raises(ValueError, match=r"ema_decay must lie in \[0, 1\)"):
        AdamW(drawn(), ema_decay=ema_decay)
    optimizer = AdamW(drawn(), ema_decay=0.9)
    optimizer.param_groups[0]["ema_decay"] = ema_decay
    give(optimizer.param_groups[0]["params"], 0)
    with pytest.raises(ValueError, match=r"ema_decay must lie in \[0, 1\)"):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.parametrize("key", ["max_norm", "skip_nonfinite"])
def test_what_concerns_all_groups_is_refused_in_one(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} concerns the gradients of all groups together"):
        AdamW([{"params": drawn(), key: 1.0}])


def test_clipping_in_a_recorded_step_is_refused() -> None:
    """The factor would be a constant to autograd: a wrong derivative, silently."""
    params = drawn()
    optimizer = AdamW(params, max_norm=1.0, differentiable=True)
    give(params, 0)
    with pytest.raises(ValueError, match="max_norm is not for differentiable=True"):
        optimizer.step()
    assert not optimizer.state
    optimizer.max_norm = None
    optimizer._conductor.plan = Plan(optimizer.param_groups, optimizer.state, may_skip=False)
    optimizer.max_norm = 1.0  # the groups are looked at again
    with pytest.raises(ValueError, match="max_norm is not for differentiable=True"):
        optimizer.step()


def test_averages_of_a_recorded_step_are_refused() -> None:
    with pytest.raises(ValueError, match="ema_decay is not for differentiable=True"):
        AdamW(drawn(), ema_decay=0.9, differentiable=True)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))], ids=["copy", "pickle"])
def test_copies_clip_and_skip_as_before(how: Any) -> None:
    params, optimizer = run_to(2, torch.float32, max_norm=0.25, skip_nonfinite=True)
    other = how(optimizer)
    assert (other.max_norm, other.skip_nonfinite) == (0.25, True)
    theirs = other.param_groups[0]["params"]
    for each, owned in ((optimizer, params), (other, theirs)):
        give(owned, 2)
        each.step()
    assert identical(everything(params, optimizer), everything(theirs, other))
    spoil(theirs, (0, 0), math.nan)
    other.step()
    assert other.skipped_steps == 1


def test_changing_max_norm_takes_effect_at_the_next_step() -> None:
    params, optimizer = run_to(1, torch.float64)
    others, clipped = run_to(1, torch.float64, max_norm=0.5)
    optimizer.load_state_dict(clipped.state_dict())
    for a, b in zip(params, others, strict=True):
        a.detach().copy_(b.detach())
    optimizer.max_norm = 0.5
    optimizer.step()
    clipped.step()
    assert identical(everything(params, optimizer), everything(others, clipped))


def test_groups_are_clipped_together() -> None:
    """One norm over all groups, buckets, dtypes and kernels, as clip_grad_norm_ over all parameters."""
    params = [*drawn(torch.float64), *drawn(torch.float32), torch.nn.Parameter(torch.ones(4, 4).t()[:, ::2])]
    params[0].data = params[0].data.t()
    optimizer = AdamW([{"params": params[:3]}, {"params": params[3:], "lr": 0.5}], max_norm=2.0)
    give(params, 0)
    want = math.sqrt(sum(float((param.grad.double() ** 2).sum()) for param in params))
    optimizer.step()
    assert optimizer.grad_norm == pytest.approx(want, rel=1e-13)
    assert len(optimizer.kernel_choices()) > 2
    for param in params:
        m, _ = optimizer.moments(param)
        torch.testing.assert_close(m.double(), 0.1 * param.grad.double() * 2 / (want + 1e-6), rtol=1e-6, atol=0)


@on_kernels
def test_complex_gradients_are_clipped_as_pairs(kernel: str) -> None:
    if kernel == "native":
        pytest.skip("complex parameters go to eager")
    param = torch.nn.Parameter(torch.zeros(1, dtype=torch.complex128))
    optimizer = AdamW([param], max_norm=1.0, ema_decay=0.5, betas=(0.0, 0.999))
    param.grad = torch.tensor([3 + 4j], dtype=torch.complex128)
    optimizer.step()
    assert optimizer.grad_norm == pytest.approx(5.0)
    torch.testing.assert_close(optimizer.moments(param)[0], param.grad / (5 + 1e-6))
    assert torch.equal(optimizer.state[param]["ema"], param.detach())


def test_no_gradients_at_all() -> None:
    optimizer = AdamW(drawn(), max_norm=1.0, skip_nonfinite=True, ema_decay=0.9)
    optimizer.step()
    assert optimizer.grad_norm == 0.0
    assert optimizer.skipped_steps == 0
    assert not optimizer.state


@pytest.mark.parametrize("closure", [False, True])
def test_options_compose_with_a_closure(closure: bool) -> None:
    model = network()
    optimizer = AdamW(model.parameters(), max_norm=1.0, ema_decay=0.9, skip_nonfinite=True)
    for x, _ in itertools.product(batches(2), range(2)):

        def evaluate(x: torch.Tensor = x) -> torch.Tensor:
            loss = model(x).square().mean()
            loss.backward()
            return loss

        if closure:
            assert optimizer.step(evaluate, zero_grad=True) > 0
        else:
            evaluate()
            assert optimizer.step(zero_grad=True) is None
    assert all(param.grad is None for param in model.parameters())


@on_kernels
def test_a_changing_set_of_gradients_is_not_planned_anew(kernel: str) -> None:
    """As a mixture of experts has it: each parameter counts its own steps, and follows what torch gives it."""
    params, theirs = drawn(), drawn()
    optimizer, other = AdamW(params, lr=1e-2, kernel=kernel), torch.optim.AdamW(theirs, lr=1e-2)
    random = torch.Generator().manual_seed(5)
    plan = None
    for step in range(60):
        absent = [] if step == 0 else torch.randint(2, (len(params),), generator=random).nonzero().flatten().tolist()
        for each in (params, theirs):
            give(each, step)
            for i in absent:
                each[i].grad = None
        optimizer.step()
        other.step()
        assert plan in (None, optimizer._conductor.plan)
        plan = optimizer._conductor.plan
    for a, b in zip(params, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert optimizer.state[a]["step"] == other.state[b]["step"] < 60


@on_kernels
def test_frozen_weights_are_averaged_as_swa_utils_does(kernel: str) -> None:
    """A layer frozen in mid-run, one that starts late, one that never does: AveragedModel averages all of them."""
    model = torch.nn.ModuleList([torch.nn.Linear(3, 3) for _ in range(4)]).double()
    optimizer = AdamW(model.parameters(), lr=1e-2, ema_decay=0.9, kernel=kernel)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for step in range(40):
        active = {0: True, 1: step < 10, 2: step > 20, 3: False}
        for index, layer in enumerate(model):
            for param in layer.parameters():
                param.grad = torch.full_like(param, 1.0 + step) if active[index] else None
        optimizer.step()
        theirs.update_parameters(model)
    with optimizer.averaged():
        for mine, other in zip(model.parameters(), theirs.module.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-14)


def test_one_verdict_for_groups_counted_by_host_and_device() -> None:
    """A capturable group beside an ordinary one: a NaN in either leaves both as they were."""
    for index in (0, 5):
        params = drawn()
        parts = [{"params": params[:3], "capturable": True}, {"params": params[3:]}]
        optimizer = AdamW(parts, skip_nonfinite=True, max_norm=1.0, ema_decay=0.9)
        give(params, 0)
        optimizer.step()
        give(params, 1)
        params[index].grad.view(-1)[0] = math.nan
        before = everything(params, optimizer)
        optimizer.step()
        assert identical(everything(params, optimizer), before)
        assert optimizer.skipped_steps == 1
        give(params, 1)
        optimizer.step()
        assert all(int(optimizer.state[param]["step"]) == 2 for param in params)


def test_an_average_begins_at_the_first_step_that_the_device_takes() -> None:
    param = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = AdamW([param], lr=0.1, capturable=True, skip_nonfinite=True, ema_decay=0.75)
    for step, value in enumerate([math.nan, math.inf, 1.0, 1.0]):
        param.grad = torch.full((3,), value, dtype=torch.float64)
        before = param.detach().clone()
        counter = optimizer._conductor.skipped
        optimizer.step()
        if step:
            assert optimizer._conductor.skipped is counter, (
                "a graph that was captured goes on counting in the same tensor"
            )
        if step == 2:
            assert torch.equal(optimizer.state[param]["ema"], param.detach())
        if step == 3:
            torch.testing.assert_close(optimizer.state[param]["ema"], torch.lerp(before, param.detach(), 0.25))
    assert optimizer.skipped_steps == 2


@on_kernels
def test_an_average_may_be_started_anew(kernel: str) -> None:
    params, optimizer = run_to(3, torch.float32, kernel=kernel)
    for param in params:
        del optimizer.state[param]["ema"]
    optimizer.step()
    assert all(torch.equal(optimizer.state[param]["ema"], param.detach()) for param in params)


def test_older_pickles_have_no_average() -> None:
    params = drawn()
    optimizer = AdamW(params)
    state = optimizer.__getstate__()
    for values in (state["defaults"], *state["param_groups"]):
        values.pop("ema_decay")
    state.pop("_conductor")
    old = AdamW.__new__(AdamW)
    old.__setstate__(state)
    give(params, 0)
    old.step()
    old.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    assert old.max_norm is None


@on_kernels
@pytest.mark.parametrize("groups", [1, 2])
def test_a_gradient_that_two_parameters_share_is_not_zeroed_too_early(kernel: str, groups: int) -> None:
    values = torch.linspace(1, 2, 300_000)
    params, mirror = ([torch.nn.Parameter(torch.zeros(100_000)) for _ in range(3)] for _ in range(2))
    cut = 3 if groups == 1 else 1
    optimizer = AdamW([{"params": params[:cut]}, {"params": params[cut:]}][:groups], kernel=kernel)
    plain = AdamW(mirror, kernel=kernel)
    shared = values.clone()
    for param, other, begin in zip(params, mirror, (0, 0, 50_000), strict=True):  # one twice, and one that overlaps
        param.grad = shared[begin : begin + 100_000]
        other.grad = values[begin : begin + 100_000].clone()
    optimizer.step(zero_grad="in_place")
    plain.step()
    assert all(map(torch.equal, params, mirror))
    assert not shared[:150_000].any()


@pytest.mark.parametrize("fused", [None, True])
@needs_native
def test_training_recovers_from_an_overflow(fused: bool | None) -> None:
    """With zero_grad() beside the scaler, as the docs have it; without fused=True it does not call `step`."""
    model = network()
    optimizer = AdamW(model.parameters(), lr=1e-3, max_norm=1.0, ema_decay=0.9, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    weight = next(model.parameters())
    start = weight.detach().clone()
    for x in batches(12):
        scaler.scale(64 * model(x).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert scaler.get_scale() < 2.0**127
    assert 0 < int(optimizer.state[weight]["step"]) < 12
    assert torch.isfinite(weight).all()
    assert not torch.equal(weight.detach(), start)
