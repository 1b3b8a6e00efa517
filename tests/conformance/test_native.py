"""What only the native kernel promises: the same bits everywhere, exact storage, refusals that touch nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from adamas.kernels import native
from adamas.kernels.bucket import MismatchError, Traits, state_names
from adamas.scalars import Hyper, StepScalars
from adamas.torch import dispatch
from tests.conformance.cases import CASES, DTYPES, SIZES, Case, Operands
from tests.conftest import KERNELS, needs_native

pytestmark = needs_native


def table_of(operands: Operands) -> Any:
    """The native table that has taken the operands."""
    bucket = operands.bucket()
    table = native._native.Table(list(state_names(bucket.amsgrad, bucket.averages)))
    assert table.take(bucket.params, bucket.states, operands.grads) == []
    return table


def step_on(isa: str, operands: Operands, scalars: StepScalars, threads: int = 1) -> list[torch.Tensor]:
    """Step in place on a named instruction set; returns everything that was written."""
    table_of(operands).step([scalars], None, False, threads, isa)
    return operands.written()


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bit for bit; any NaN equals any other, whose payload IEEE leaves open."""
    words = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return bool(((a.view(words) == b.view(words)) | (a.isnan() & b.isnan())).all())


def with_specials(operands: Operands) -> Operands:
    """Plants infinities, NaN, signed zeros, subnormals and the largest numbers of each dtype among the operands."""
    specials = [float("inf"), -float("inf"), float("nan"), 0.0, -0.0, 1e-45, -1e-40, 3e38, 6e-8, 65504.0]
    for tensors in (operands.params, operands.grads, *operands.moments, operands.emas):
        for tensor in tensors:
            flat, largest = tensor.view(-1), torch.finfo(tensor.dtype).max
            for i, value in enumerate(specials[: flat.numel()]):
                if math.isfinite(value):
                    value = min(value, largest)  # torch 2.6 refuses to write 3e38 into float16
                flat[(i * 7 + len(flat) // 3) % flat.numel()] = value
    return operands


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_isa_gives_the_same_bits(case: Case, dtype: torch.dtype) -> None:
    isas = native.isas()
    assert "scalar" in isas
    sizes = [*SIZES, (20_000,)]
    results = []
    for isa in isas:
        operands = with_specials(Operands.drawn(sizes, dtype, case.amsgrad, averages=case.averages))
        results.append(step_on(isa, operands, StepScalars.of(case.hyper, 7)))
    for isa, result in zip(isas[1:], results[1:], strict=True):
        assert all(map(same_bits, result, results[0])), isa


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_do_not_change_bits(threads: int) -> None:
    sizes = [(300_001,), (5,), (70_000,), (0,), (64, 1000)]
    scalars = StepScalars.of(Hyper(weight_decay=0.1, decay="lr", ema_decay=0.9), 5)
    first, second = (Operands.drawn(sizes, torch.float32, False, averages=True) for _ in range(2))
    assert table_of(first).squares(1) == table_of(second).squares(threads)
    assert all(map(torch.equal, step_on("", first, scalars, threads=1), step_on("", second, scalars, threads=threads)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_isa_squares_alike(dtype: torch.dtype) -> None:
    operands = Operands.drawn([*SIZES, (20_000,), (65_536 * 3 + 5,)], dtype, False)
    sums = [table_of(operands).squares(1, isa) for isa in native.isas()]
    assert all(other == sums[0] for other in sums[1:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("isa", native.isas())
def test_touching_changes_nothing(isa: str, dtype: torch.dtype) -> None:
    """What measures the memory writes back what it read."""
    operands = Operands.drawn(SIZES, dtype, True, averages=True)
    before = [tensor.clone() for tensor in [*operands.written(), *operands.grads]]
    table_of(operands).touch(1, isa)
    assert all(map(torch.equal, [*operands.written(), *operands.grads], before))


def test_partition_and_order_do_not_change_bits() -> None:
    """One tensor, the same elements cut into pieces, and the pieces in another order: the same bits."""
    scalars = StepScalars.of(Hyper(weight_decay=0.1), 5)
    whole = Operands.drawn([(10_000,)], torch.float32, False)
    cuts = [0, 1, 17, 4096, 4097, 9999, 10_000]
    order = [3, 0, 5, 1, 4, 2]

    def piece(tensor: torch.Tensor, i: int) -> torch.Tensor:
        return tensor[cuts[i] : cuts[i + 1]].clone()

    pieces = Operands(
        [piece(whole.params[0], i) for i in order],
        [piece(whole.grads[0], i) for i in order],
        [[piece(moment[0], i) for i in order] for moment in whole.moments],
    )
    step_on("", whole, scalars)
    step_on("", pieces, scalars)
    for position, i in enumerate(order):
        assert torch.equal(pieces.params[position], whole.params[0][cuts[i] : cuts[i + 1]])


def test_flush_denormal_of_the_caller_does_not_reach_the_kernel() -> None:
    """torch.set_flush_denormal changes the processor's mode; the rule keeps subnormals, on every thread."""

    def tiny() -> Operands:
        size = (200_000,)
        return Operands(
            [torch.zeros(size)], [torch.full(size, 1e-20)], [[torch.full(size, 1e-39)], [torch.full(size, 1e-41)]]
        )

    scalars = StepScalars.of(Hyper(), 5)
    flushed = tiny()
    want = step_on("", tiny(), scalars, threads=2)
    try:
        if not torch.set_flush_denormal(True):
            pytest.skip("this processor cannot flush subnormals")
        got = step_on("", flushed, scalars, threads=2)
    finally:
        torch.set_flush_denormal(False)
    assert (want[2] > 0).all()
    assert all(map(torch.equal, got, want))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("isa", native.isas())
def test_sixteen_bits_are_read_and_rounded_as_torch_does(dtype: torch.dtype, isa: str) -> None:
    """All 65,536 patterns through a step that leaves them be, and float32 rounding at its halves and edges."""
    words = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    param = words.view(dtype).clone()
    zeros = torch.zeros(param.shape)
    operands = Operands([param], [torch.zeros_like(param)], [[zeros.clone()], [zeros.clone()]])
    step_on(isa, operands, StepScalars.of(Hyper(lr=1e-30), 1))  # theta - 0: load and store alone
    want = words.view(dtype)
    assert same_bits(param, want)
    # beta1 = 0 and a vast eps make the update -lr * g / eps: any float32 value reaches the rounding.
    random = torch.Generator().manual_seed(1)
    values = torch.cat([
        torch.randn(20_000, generator=random) * 10 ** (torch.rand(20_000, generator=random) * 12 - 9),
        (want.float()[torch.isfinite(want.float())]) * (1 + torch.finfo(dtype).eps / 2),
        torch.tensor([65519.0, 65520.0, 65535.0, 1e6, 5.9e-8, 2.98e-8, 2.9802322387695312e-08, 6.1e-5, 3.4e38]),
    ])  # fmt: skip
    values = values[values != 0]  # 0 - 0 is +0, whatever the sign asked for
    first = -values
    param = torch.zeros(values.shape, dtype=dtype)
    operands = Operands([param], [torch.zeros_like(param)], [[first], [torch.zeros(values.shape)]])
    # m stays as it is (its complement 0), v = 0, denominator = eps = 1: theta = -m.
    scalars = StepScalars.of(Hyper(), 1)._replace(beta1=1.0, beta1_complement=0.0, step_size=1.0, eps=1.0)
    step_on(isa, operands, scalars)
    assert same_bits(param, values.to(dtype))


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "attributes"])
def test_tensors_are_read_alike_with_and_without_the_exchange_table(exchange: bool) -> None:
    table = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    try:
        native._native.use_torch(torch.Tensor, torch.nn.Parameter, table if exchange else None)
        test_partition_and_order_do_not_change_bits()
        for wrong in MISMATCHES:
            test_mismatches_are_refused_before_anything_is_written(wrong)
    finally:
        native._native.use_torch(torch.Tensor, torch.nn.Parameter, table)


MISMATCHES = {
    "grad shape": lambda o: o.grads.__setitem__(1, torch.zeros(4, 3)),
    "grad dtype": lambda o: o.grads.__setitem__(1, torch.zeros(3, 4, dtype=torch.float64)),
    "grad sparse": lambda o: o.grads.__setitem__(1, torch.zeros(3, 4).to_sparse()),
    "grad device": lambda o: o.grads.__setitem__(1, torch.zeros(3, 4, device="meta")),
    "param gaps": lambda o: o.params.__setitem__(1, torch.zeros(3, 8)[:, ::2]),
    "param expanded": lambda o: o.params.__setitem__(1, torch.zeros(1, 4).expand(3, 4)),
    "param dtype": lambda o: o.params.__setitem__(1, torch.zeros(3, 4, dtype=torch.int32)),
    "moment dtype": lambda o: o.moments[0].__setitem__(1, torch.zeros(3, 4, dtype=torch.bfloat16)),
    "moment shape": lambda o: o.moments[1].__setitem__(1, torch.zeros(12)),
    "moment layout": lambda o: o.moments[1].__setitem__(1, torch.zeros(4, 3).t()),
    "moment device": lambda o: o.moments[1].__setitem__(1, torch.zeros(3, 4, device="meta")),
}


@pytest.mark.parametrize("wrong", MISMATCHES)
def test_mismatches_are_refused_before_anything_is_written(wrong: str) -> None:
    operands = Operands.drawn([(5,), (3, 4)], torch.float32, False)
    before = [tensor.clone() for tensor in (operands.params[0], operands.moments[0][0])]
    MISMATCHES[wrong](operands)
    prepared = native.prepare(operands.bucket())
    with pytest.raises(MismatchError, match="1"):
        native.take(prepared, operands.grads)
    assert torch.equal(operands.params[0], before[0])
    assert torch.equal(operands.moments[0][0], before[1])


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_tensor_takes_its_own_step_and_those_without_a_gradient_none(kernel: str) -> None:
    """Several scalars in one call give each tensor what it gets alone; without a gradient only averages go on."""
    sizes = [(5,), (300, 200), (3, 4), (), (0,), (70_001,), (64,)]
    which = [0, 1, 2, 1, 0, 2, 2]
    several = [StepScalars.of(Hyper(weight_decay=0.1, decay="lr", ema_decay=0.9), step) for step in (1, 7, 300)]
    together, alone = (Operands.drawn(sizes, torch.float32, False, averages=True) for _ in range(2))
    missing = {0, 5}
    grads = [None if i in missing else grad for i, grad in enumerate(together.grads)]
    module = dispatch.KERNELS[kernel]
    prepared = module.prepare(together.bucket())
    module.take(prepared, grads)
    versions = [param._version for param in together.params]
    squares = module.squares(prepared)
    assert math.fsum(map(float, squares)) == pytest.approx(sum(float((g**2).sum()) for g in grads if g is not None))
    module.step(prepared, several, which)
    for i in range(len(sizes)):
        one = Operands([alone.params[i]], [alone.grads[i]], [[m[i]] for m in alone.moments], [alone.emas[i]])
        if i in missing:
            one.emas[0].lerp_(one.params[0], several[which[i]].average)
        else:
            one.step(kernel, several[which[i]])
        got = Operands([together.params[i]], [], [[m[i]] for m in together.moments], [together.emas[i]])
        tolerance = 2e-6 if i in missing else 0  # torch's lerp has another order of operations
        torch.testing.assert_close(got.emas, one.emas, rtol=tolerance, atol=tolerance)
        assert all(map(torch.equal, got.written()[:-1], one.written()[:-1]))
        if i in missing:
            assert together.params[i]._version == versions[i], "autograd is not told of a change that was none"


def test_scalars_must_be_somebodys() -> None:
    operands = Operands.drawn([(5,), (3,)], torch.float32, False)
    one = StepScalars.of(Hyper(), 1)
    for scalars, which in (([one, one], None), ([], None), ([one], [0, 1]), ([one], [0])):
        with pytest.raises(native._native.Mismatch):
            table_of(operands).step(scalars, which, False, 1)


def test_gradients_in_another_layout_are_copied_and_left_alone() -> None:
    plain = Operands.drawn([(30, 20)], torch.float32, False)
    other = plain.laid_out(torch.clone)
    other.grads = [plain.grads[0].t().contiguous().t()]
    before = other.grads[0].clone()
    scalars = StepScalars.of(Hyper(), 1)
    plain.step("native", scalars)
    other.step("native", scalars)
    assert torch.equal(plain.params[0], other.params[0])
    assert torch.equal(before, other.grads[0])


def test_a_table_notices_tensors_that_were_moved() -> None:
    """A parameter or moment given new memory under the same tensor is read anew, never through a stale address."""
    operands, mirror = (Operands.drawn([(1000,)], torch.float32, False) for _ in range(2))
    scalars = StepScalars.of(Hyper(), 1)
    prepared = native.prepare(operands.bucket())
    for moved in ([], operands.params, operands.moments[0], operands.moments[1]):
        for tensor in moved:
            tensor.data = tensor.data.clone()
        native.take(prepared, operands.grads)
        native.step(prepared, [scalars])
        mirror.step("native", scalars)
        assert torch.equal(operands.params[0], mirror.params[0])


@pytest.mark.parametrize(
    "traits",
    [
        Traits("cuda", torch.float32, torch.float32, plain=True, dense=True, host_scalars=True),
        Traits("cpu", torch.complex64, torch.complex64, plain=True, dense=True, host_scalars=True),
        Traits("cpu", torch.float32, torch.bfloat16, plain=True, dense=True, host_scalars=True),
        Traits("cpu", torch.float32, torch.float32, plain=False, dense=True, host_scalars=True),
        Traits("cpu", torch.float32, torch.float32, plain=True, dense=False, host_scalars=True),
        Traits("cpu", torch.float32, torch.float32, plain=True, dense=True, host_scalars=False),
    ],
)
def test_refusals_have_a_reason(traits: Traits) -> None:
    assert native.refuses(traits)


def test_an_unknown_isa_is_refused() -> None:
    operands = Operands.drawn([(5,)], torch.float32, False)
    with pytest.raises(ValueError, match="isa='mmx' is not available"):
        step_on("mmx", operands, StepScalars.of(Hyper(), 1))


def test_backward_through_a_stepped_parameter_is_noticed() -> None:
    """As after torch's own in-place step: autograd must not use the old graph with the new values."""
    param = torch.nn.Parameter(torch.ones(3))
    loss = (param * param).sum()
    operands = Operands([param], [torch.ones(3)], [[torch.zeros(3)], [torch.zeros(3)]])
    operands.step("native", StepScalars.of(Hyper(), 1))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("isa", native.isas())
def test_infinite_weights_stay_infinite_under_decay(isa: str, dtype: torch.dtype) -> None:
    """As in torch.optim.AdamW; theta - (update + decay * theta) would be inf - inf."""
    infinite = torch.tensor([math.inf, -math.inf, 1.0, -2.0, torch.finfo(dtype).max, math.nan] * 7, dtype=dtype)
    operands = Operands.drawn([tuple(infinite.shape)], dtype, False)
    operands.params[0].copy_(infinite)
    hyper = Hyper(lr=1e-2, weight_decay=0.1, decay="lr")
    for scalars in (StepScalars.of(hyper, 1), cautious(StepScalars.of(hyper, 1))):
        step_on(isa, operands, scalars)
        for value in (math.inf, -math.inf):
            assert (operands.params[0][infinite == value] == value).all()
        assert operands.params[0][~infinite.isinf() & ~infinite.isnan()].isfinite().all()
        assert operands.params[0][infinite.isnan()].isnan().all()


def cautious(scalars: StepScalars) -> Any:
    """The same step with decay only where the update does not oppose the weight; the field after `skip`."""
    return (*scalars[:16], True)


@pytest.mark.parametrize("amsgrad", ["off", "raw"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("isa", native.isas())
def test_cautious_decay_acts_where_update_and_weight_agree(isa: str, dtype: torch.dtype, amsgrad: str) -> None:
    """Each element is bit for bit that of the step with decay, or where the signs differ of the one without."""
    beta = Hyper(amsgrad=amsgrad)
    decayed = Hyper(lr=1e-2, weight_decay=0.5, decay="lr", amsgrad=amsgrad)
    free = Hyper(lr=1e-2, amsgrad=amsgrad)
    assert beta.beta1 == decayed.beta1

    def after(scalars: Any) -> Operands:
        operands = with_specials(Operands.drawn([(5000,), (3, 5), ()], dtype, amsgrad != "off"))
        operands.grads[0][::7] = 0
        operands.moments[0][0][::7] = 0  # no update: decay acts
        operands.params[0][1::7] *= 1e-30 if dtype != torch.float16 else 1e-3  # a product of signs would underflow
        step_on(isa, operands, scalars)
        return operands

    got, with_decay, without = after(cautious(StepScalars.of(decayed, 3))), *map(after, (
        StepScalars.of(decayed, 3), StepScalars.of(free, 3)))  # fmt: skip
    start = with_specials(Operands.drawn([(5000,), (3, 5), ()], dtype, amsgrad != "off"))
    start.params[0][1::7] *= 1e-30 if dtype != torch.float16 else 1e-3
    chosen = 0
    for i, theta in enumerate(start.params):
        m = got.moments[0][i]
        opposed = ((m > 0) & (theta < 0)) | ((m < 0) & (theta > 0))
        chosen += int(opposed.sum())
        assert same_bits(got.params[i], torch.where(opposed, without.params[i], with_decay.params[i]))
        assert same_bits(m, with_decay.moments[0][i])
    assert 1000 < chosen < 4000


def test_coupled_decay_is_never_cautious() -> None:
    plain, other = (Operands.drawn([(500,)], torch.float32, False) for _ in range(2))
    scalars = StepScalars.of(Hyper(weight_decay=0.1, decay="l2"), 3)
    assert all(map(same_bits, step_on("", plain, scalars), step_on("", other, cautious(scalars))))
