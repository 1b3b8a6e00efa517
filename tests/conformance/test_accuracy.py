"""One step of every kernel against the float64 rule on the same inputs, in units of the last place (ULP)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adamas import reference
from adamas.scalars import Hyper, StepScalars
from tests.conformance.cases import CASES, DTYPES, LAYOUTS, SIZES, Case, Operands
from tests.conftest import EVERYWHERE, INTERPRETED

# Triton's interpreter takes a second for 10,000 elements. A kernel sees the step only through its scalars, and one full
# block of 256 elements with a tail is all its code.
STEPS = [1000] if INTERPRETED else [1, 2, 10, 1000, 1_000_000]
SIZE = 300 if INTERPRETED else 5000
SQUARED = (
    8192 * 2 + 1 if INTERPRETED else 140_000
)  # several tiles of the Triton kernel, several chunks of the native one


@pytest.fixture(autouse=True)
def stepped_by(request: pytest.FixtureRequest) -> None:
    """Skips what a kernel is not for."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    kernel = parameters.get("kernel", "")
    if kernel == "triton" and parameters.get("dtype") == torch.float64:
        pytest.skip("triton is not for float64: see test_triton")


def ulp(x: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """The spacing of a dtype's numbers at |x|."""
    info = torch.finfo(dtype)
    exponent = np.floor(np.log2(np.maximum(np.abs(x), info.tiny)))
    return 2.0**exponent * info.eps


def expected(operands: Operands, case: Case, step: int) -> list[tuple[np.ndarray, reference.State]]:
    """What the reference makes of each tensor."""
    results = []
    for i, (param, grad) in enumerate(zip(operands.params, operands.grads, strict=True)):
        moments = [moment[i].double().numpy() for moment in operands.moments]
        v_max = moments[2] if len(moments) > 2 else np.zeros(param.shape)
        state = reference.State(moments[0], moments[1], v_max, step - 1)
        results.append(reference.step(param.double().numpy(), grad.double().numpy(), state, case.hyper))
    return results


def bounds(operands: Operands, i: int, case: Case, new: np.ndarray, state: reference.State) -> dict[str, np.ndarray]:
    """Allowed errors of tensor i, derived from the roundings of one float32 (float64) step, eps = half an ULP each.

    m: two roundings of (g - m) and its product, each at most half an ULP of max(|m|, |g|) times 1 - beta1, and one of
    the sum: under 2 ULP. v: the same with g*g, itself rounded once. theta: the last rounding (1/2 ULP), that of the
    decay term, and the update's own error, which has seven roundings (m, v under a root, root, + eps, division, step
    size, product) of half an ULP, or 2**-24 relative, each: 7 * 2**-24 < 4 ULP; where m cancels, m's error in units
    of its operands passes into the update undiminished, times lr / (sqrt(v) + eps).
    In float64 the reference rounds as often as what it judges: twice all that.
    """
    theta, g = operands.params[i].double().numpy(), operands.grads[i].double().numpy()
    m, v = (moment[i].double().numpy() for moment in operands.moments[:2])
    hyper, compute = case.hyper, operands.moments[0][i].dtype
    scalars = StepScalars.of(hyper, state.t)
    g_size = np.maximum(np.abs(g), np.abs(scalars.l2 * theta))
    m_error = 2 * ulp(np.maximum.reduce([np.abs(m), g_size, np.abs(state.m)]), compute)
    v_error = 2 * ulp(np.maximum.reduce([v, g_size**2, state.v]), compute)
    second = (state.v_max if scalars.amsgrad else state.v) + scalars.eps_root
    denominator = np.sqrt(second) + scalars.eps
    with np.errstate(divide="ignore", invalid="ignore"):
        update = np.abs(scalars.step_size * state.m / denominator)
        passed_on = scalars.step_size * m_error / denominator
    coupled = 1 if scalars.l2 == 0 else 3  # v's error relative to v, where g + l2*theta cancels
    ratio = 1 if scalars.l2 == 0 else np.where(state.v > 0, np.maximum(g_size**2 / np.maximum(state.v, 1e-300), 1), 1)
    param_error = ulp(new, compute) + ulp(scalars.decay * theta, compute) + passed_on
    param_error = param_error + 4 * coupled * ratio * ulp(update, compute)
    if operands.params[i].dtype != compute:  # rounded once more, to the parameter's own 16 bits
        param_error = param_error + 0.5 * ulp(np.abs(new) + param_error, operands.params[i].dtype)
    both = 2 if compute == torch.float64 else 1
    return {"param": both * param_error, "exp_avg": both * m_error, "exp_avg_sq": both * v_error}


@pytest.mark.parametrize("kernel", EVERYWHERE)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_step_is_within_derived_bounds(case: Case, dtype: torch.dtype, kernel: str) -> None:
    for step in STEPS:
        operands = Operands.drawn([(SIZE,)], dtype, case.amsgrad, seed=step, averages=case.averages)
        (new, state), *_ = expected(operands, case, step)
        allowed = bounds(operands, 0, case, new, state)
        operands.step(kernel, StepScalars.of(case.hyper, step))
        got = {"param": operands.params[0], "exp_avg": operands.moments[0][0], "exp_avg_sq": operands.moments[1][0]}
        for name, want in (("param", new), ("exp_avg", state.m), ("exp_avg_sq", state.v)):
            values = got[name].double().numpy()
            overflows = np.abs(want) >= torch.finfo(got[name].dtype).max  # float16 ends at 65504
            assert np.isinf(values[np.abs(want) > 1.1 * torch.finfo(got[name].dtype).max]).all()
            error = np.where(overflows, 0.0, np.abs(values - want))
            worst = int(np.argmax(error / allowed[name]))
            assert (error <= allowed[name]).all(), (
                f"{name} at step {step}: {error[worst]:.3g} off {want[worst]!r}, allowed {allowed[name][worst]:.3g}"
            )


@pytest.mark.parametrize("kernel", EVERYWHERE)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("step", [1, 2, 50, 10_000])
def test_ordinary_float32_steps_are_within_two_ulp(kernel: str, weight_decay: float, step: int) -> None:
    """Operands as in training: within 2 ULP of the largest of |theta|, |lr u|, |lr wd theta|."""
    case = Case("training", {"lr": 1e-3, "weight_decay": weight_decay, "decay": "lr"})
    rng = np.random.default_rng(step)
    size = min(SIZE, 4097)
    theta, g, m = (torch.tensor(rng.normal(size=size) * scale, dtype=torch.float32) for scale in (1.0, 0.01, 0.003))
    v = torch.tensor(1e-4 * rng.chisquare(5, size) / 5, dtype=torch.float32)
    operands = Operands([theta], [g], [[m * (step > 1)], [v * (step > 1)]])
    (new, _), *_ = expected(operands, case, step)
    old = theta.double().numpy()
    scale = np.maximum.reduce([np.abs(old), np.abs(old * (1 - 1e-3 * weight_decay) - new)])
    operands.step(kernel, StepScalars.of(case.hyper, step))
    error = np.abs(operands.params[0].double().numpy() - new) / ulp(scale, torch.float32)
    assert error.max() <= 2.0


@pytest.mark.parametrize("kernel", EVERYWHERE)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sizes_and_layouts(kernel: str, dtype: torch.dtype, layout: str) -> None:
    """Every size around a vector's width, in every layout, steps as the same values do in one contiguous tensor."""
    if kernel == "native" and layout == "strided":
        pytest.skip("native refuses parameters with gaps: see test_mismatches_are_refused_before_anything_is_written")
    case = Case("all", {"weight_decay": 0.1, "decay": "lr", "amsgrad": "raw", "ema_decay": 0.9})
    plain = Operands.drawn(SIZES, dtype, amsgrad=True, averages=True)
    other = plain.laid_out(LAYOUTS[layout])
    reference_bits = plain.laid_out(torch.clone)
    scalars = StepScalars.of(case.hyper, 3)
    other.step(kernel, scalars, zero_grad=True)
    reference_bits.step(kernel, scalars)
    assert all(map(torch.equal, other.written(), reference_bits.written()))
    assert not any(bool(grad.any()) for grad in other.grads)
    if layout == "strided":  # what lies in the gaps is somebody else's
        rooms = [tensor for tensor in [*other.written(), *other.grads] if tensor.numel()]
        assert all(bool((room._base[..., 1] == 7).all()) for room in rooms)


@pytest.mark.parametrize("kernel", EVERYWHERE)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("ema_decay", [0.0, 0.3, 0.5, 0.999])
def test_the_average_of_the_stored_weights(kernel: str, dtype: torch.dtype, ema_decay: float) -> None:
    """Within 2 ULP of the larger of average and weight, as the first moment is: the same recurrence.

    The weight that is averaged is the one that was stored, so nothing of the step's own error is in it.
    """
    operands = Operands.drawn([(SIZE,), (3,)], dtype, False, averages=True)
    before = [ema.double().numpy().copy() for ema in operands.emas]
    operands.step(kernel, StepScalars.of(Hyper(ema_decay=ema_decay), 4))
    for old, ema, param in zip(before, operands.emas, operands.params, strict=True):
        theta = param.double().numpy()
        want = reference.average(old, theta, ema_decay)
        error = np.abs(ema.double().numpy() - want)
        assert (error <= 2 * ulp(np.maximum(np.abs(old), np.abs(theta)), ema.dtype)).all()


@pytest.mark.parametrize("kernel", EVERYWHERE)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_average_begins_as_a_copy(kernel: str, dtype: torch.dtype) -> None:
    operands = Operands.drawn(SIZES, dtype, False, averages=True)
    operands.params[-1][:2] = -0.0
    operands.step(kernel, StepScalars.of(Hyper(lr=0.0, ema_decay=0.99), 1, average_begins=True))
    for ema, param in zip(operands.emas, operands.params, strict=True):
        assert torch.equal(ema, param.to(ema.dtype))
        assert torch.equal(ema.signbit(), param.signbit())


@pytest.mark.parametrize("kernel", EVERYWHERE)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_squares(kernel: str, dtype: torch.dtype, layout: str) -> None:
    """Sums of squares in float64: each square is exact for 32 bits and less, each addition errs by half an ULP.

    n additions in at least 16 lanes and chunks of at most 65,536 err by at most (n / 16 + 16) halves of an ULP of the
    sum, and pairwise sums by less.
    """
    if kernel == "native" and layout == "strided":
        pytest.skip("native refuses parameters with gaps")
    operands = Operands.drawn([*SIZES, (SQUARED,)], dtype, False).laid_out(LAYOUTS[layout])
    for got, grad in zip(operands.squares(kernel), operands.grads, strict=True):
        want = math.fsum((grad.double() ** 2).flatten().tolist())
        assert abs(got - want) <= (grad.numel() / 16 + 16) * 2.0**-53 * want


@pytest.mark.parametrize("kernel", EVERYWHERE)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("position", [0, 15, 16, 96, 4095, 4096])
def test_squares_show_what_is_not_finite(kernel: str, dtype: torch.dtype, value: float, position: int) -> None:
    operands = Operands.drawn([(4097,), (3,)], dtype, False)
    operands.grads[0][position] = value
    spoiled, whole = operands.squares(kernel)
    assert not math.isfinite(spoiled)
    assert math.isnan(spoiled) is math.isnan(value)
    assert math.isfinite(whole)


@pytest.mark.parametrize("foreach", [False, True])
def test_eager_lists_and_single_tensors_agree_bitwise(foreach: bool) -> None:
    case = Case("l2", {"weight_decay": 0.1, "amsgrad": "raw"})
    one, other = (Operands.drawn(SIZES, torch.float32, amsgrad=True) for _ in range(2))
    one.step("eager", StepScalars.of(case.hyper, 3), foreach=foreach)
    other.step("eager", StepScalars.of(case.hyper, 3))
    assert all(map(torch.equal, one.params, other.params))
