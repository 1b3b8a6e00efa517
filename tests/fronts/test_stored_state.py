"""State of fewer bits in the optimizer: who gets it, checkpoints in and out, resuming, refusals."""

from __future__ import annotations

import copy
import io
import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from adamas.kernels import native
from adamas.options import STATE_DTYPES
from adamas.torch import Adam, AdamW, param_groups
from tests.conftest import KERNELS, needs_native

STORAGES: list[dict[str, Any]] = [
    *({"state_dtype": state_dtype} for state_dtype in STATE_DTYPES),
    *({"state_dtype": "packed16", "master_weight_bits": bits} for bits in (24, 32)),
    {"state_dtype": "packed12", "master_weight_bits": 24, "stochastic_rounding": False},
    {"master_weight_bits": 32, "ema_decay": 0.9},
]
DTYPES = (torch.float32, torch.bfloat16)


def network(dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Sequential:
    """Two matrices that are large enough, one that is not, biases and a norm."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(70, 130), nn.LayerNorm(130), nn.ReLU(), nn.Linear(130, 66), nn.Linear(66, 3)).to(
        dtype
    )


def backward(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    dtype = next(model.parameters()).dtype
    model.zero_grad()
    model(torch.randn(8, 70, generator=generator).to(dtype)).square().mean().backward()


def train(model: nn.Module, optimizer: AdamW | Adam, steps: range) -> None:
    for step in steps:
        backward(model, step)
        optimizer.step()


def everything(model: nn.Module, optimizer: AdamW | Adam) -> list[torch.Tensor]:
    tensors = [param.detach() for param in model.parameters()]
    return tensors + [x for param in model.parameters() for _, x in sorted(optimizer.state[param].items())]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    """Compared before `assert` sees it: pytest would print all."""
    return len(a) == len(b) and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("options", "dtype"), [*product(STORAGES, DTYPES)], ids=str)
def test_a_resumed_run_is_the_undisturbed_one(options: dict[str, Any], dtype: torch.dtype, kernel: str) -> None:
    whole, begun, resumed = network(dtype), network(dtype), network(dtype, seed=1)
    straight = AdamW(whole.parameters(), lr=1e-2, kernel=kernel, seed=3, **options)
    train(whole, straight, range(10))
    before = AdamW(begun.parameters(), lr=1e-2, kernel=kernel, seed=3, **options)
    train(begun, before, range(6))
    file = io.BytesIO()
    torch.save({"model": begun.state_dict(), "optimizer": before.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed.load_state_dict(saved["model"])
    after = AdamW(resumed.parameters(), lr=1e-2, kernel=kernel, **options)
    after.load_state_dict(saved["optimizer"])
    train(resumed, after, range(6, 10))
    assert same(everything(whole, straight), everything(resumed, after))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("state_dtype", STATE_DTYPES)
def test_a_float32_checkpoint_of_torch_loads_into_any_format_and_out(state_dtype: str, kernel: str) -> None:
    model = network()
    theirs = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train(model, theirs, range(5))  # pyright: ignore
    ours = AdamW(model.parameters(), lr=1e-3, state_dtype=state_dtype, kernel=kernel)
    ours.load_state_dict(theirs.state_dict())
    for param in model.parameters():
        exact, exact_sq = theirs.state[param]["exp_avg"], theirs.state[param]["exp_avg_sq"]
        exp_avg, exp_avg_sq = ours.moments(param)
        known = exact_sq > 0
        far = ((exp_avg - exact) / exact_sq.sqrt())[known].abs().max() if known.any() else 0
        limit = {"float32": 1e-6, "param": 1e-6, "bfloat16": 0.04, "packed16": 0.12, "packed12": 0.4}[state_dtype]
        assert far <= limit
        assert ((exp_avg_sq / exact_sq)[known].log().abs() < limit).all()
    train(model, ours, range(5, 8))
    back = torch.optim.AdamW(model.parameters(), lr=1e-3)
    back.load_state_dict(ours.state_dict(decoded=True))
    for param in model.parameters():
        assert back.state[param].keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert float(back.state[param]["step"]) == 8
        for mine, other in zip(ours.moments(param), ("exp_avg", "exp_avg_sq"), strict=True):
            torch.testing.assert_close(back.state[param][other], mine, rtol=0, atol=0)
    train(model, back, range(8, 9))  # pyright: ignore


@pytest.mark.parametrize(("source", "target"), [*product(STATE_DTYPES, STATE_DTYPES)])
def test_every_format_loads_every_other(source: str, target: str) -> None:
    model = network(torch.bfloat16)
    first = AdamW(model.parameters(), state_dtype=source)
    train(model, first, range(3))
    second = AdamW(model.parameters(), state_dtype=target)
    second.load_state_dict(first.state_dict())
    for param in model.parameters():
        (m, v), (m2, v2) = first.moments(param), second.moments(param)
        units = v.sqrt() + 1e-30
        assert ((m - m2).abs() / units).max() < 0.5
        assert ((v2 - v).abs() / (v + 1e-30)).max() < 0.5
        if source == target:
            assert torch.equal(m, m2)
            assert torch.equal(v, v2)
        if target in ("packed16", "packed12"):
            assert (target in second.state[param]) == (param.numel() >= 4096 and param.ndim == 2)
    train(model, second, range(3, 5))


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16", "packed16"])
@pytest.mark.parametrize(("source", "target"), [*product((None, 24, 32), (None, 24, 32))])
def test_master_weights_load_from_each_other(source: int | None, target: int | None, state_dtype: str) -> None:
    model = network(torch.bfloat16)
    first = AdamW(model.parameters(), lr=1e-2, master_weight_bits=source, state_dtype=state_dtype)
    train(model, first, range(3))
    second = AdamW(model.parameters(), lr=1e-2, master_weight_bits=target, state_dtype=state_dtype)
    second.load_state_dict(first.state_dict())
    for param in model.parameters():
        before, after = first.master(param), second.master(param)
        bound = {None: 2.0**-8, 24: 2.0**-15, 32: 0.0}[target] if source else 0.0
        if source == 24 and target == 32:
            bound = 0.0
        assert ((before - after).abs() <= bound * before.abs() * 1.01).all()
    train(model, second, range(3, 5))


def test_decoding_leaves_the_state_as_it_is() -> None:
    model = network()
    optimizer = AdamW(model.parameters(), state_dtype="packed16", amsgrad=False)
    train(model, optimizer, range(2))
    before = copy.deepcopy(everything(model, optimizer))
    saved = optimizer.state_dict(decoded=True)
    assert not any("packed16" in state for state in saved["state"].values())
    assert "packed16" in optimizer.state_dict()["state"][0]
    assert same(before, everything(model, optimizer))


def test_bytes_are_counted_and_compressed_in_the_checkpoint() -> None:
    weight = nn.Parameter(torch.randn(512, 1024))
    sizes = {}
    for state_dtype in STATE_DTYPES:
        optimizer = AdamW([weight], state_dtype=state_dtype)
        weight.grad = torch.randn_like(weight)
        optimizer.step()
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        sizes[state_dtype] = optimizer.state_bytes() / weight.numel()
        assert len(file.getvalue()) / weight.numel() == pytest.approx(sizes[state_dtype], abs=0.02)
    expected = {"float32": 8, "param": 8, "bfloat16": 4, "packed16": 2 + 12 / 256, "packed12": 1.5 + 12 / 256}
    assert sizes == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("state_dtype", ["bfloat16", "packed16", "packed12"])
def test_small_tensors_keep_float32(state_dtype: str) -> None:
    model = network()
    optimizer = AdamW(model.parameters(), state_dtype=state_dtype)
    train(model, optimizer, range(1))
    large = [model[0].weight, model[3].weight]
    for param in model.parameters():
        state = optimizer.state[param]
        wide = state.get("exp_avg") is not None and state["exp_avg"].dtype == torch.float32
        assert wide != any(param is one for one in large)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64])
def test_wider_parameters_keep_their_moments(dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.randn(64, 64, dtype=dtype))
    optimizer = AdamW([weight], state_dtype="packed16", master_weight_bits=24)
    weight.grad = torch.randn_like(weight)
    with pytest.warns(UserWarning, match=f"'packed16' is applied to 0 % .* 100 % .* {str(dtype)[6:]} parameters"):
        optimizer.step()
    assert optimizer.moments(weight)[0].dtype == dtype
    assert optimizer.master(weight).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel", [None, "eager"])
def test_param_keeps_moments_as_the_parameter(dtype: torch.dtype, kernel: str | None) -> None:
    weight = nn.Parameter(torch.randn(7).to(dtype))
    optimizer = AdamW([weight], state_dtype="param", kernel=kernel)
    for _ in range(3):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
    assert optimizer.state[weight]["exp_avg"].dtype == dtype
    assert optimizer.moments(weight)[1].dtype == torch.float32


@needs_native
@pytest.mark.parametrize(("options", "dtype"), [*product(STORAGES, DTYPES)], ids=str)
def test_neither_order_nor_groups_change_a_bit(options: dict[str, Any], dtype: torch.dtype) -> None:
    base = network(dtype)
    optimizer = AdamW(base.parameters(), lr=1e-2, **options)
    grads = []
    for step in range(4):
        backward(base, step)
        grads.append([param.grad.clone() for param in base.parameters()])  # pyright: ignore
        optimizer.step()
    for arrange in (lambda p: p[::-1], lambda p: [{"params": [x]} for x in p]):
        model = network(dtype)
        other = AdamW(arrange(list(model.parameters())), lr=1e-2, **options)
        for values in grads:
            for param, grad in zip(model.parameters(), values, strict=True):
                param.grad = grad.clone()
            other.step()
        assert same(everything(base, optimizer), everything(model, other))


@needs_native
@pytest.mark.parametrize("options", STORAGES, ids=str)
def test_eager_and_native_begin_with_the_same_moments_and_stay_near(options: dict[str, Any]) -> None:
    """The first moments are the same in every operation; after that torch's differ from ours in the last place."""
    models = [network(torch.bfloat16) for _ in range(2)]
    optimizers = [
        AdamW(model.parameters(), lr=1e-2, kernel=kernel, **options)
        for model, kernel in zip(models, ("native", "eager"), strict=True)
    ]
    for step in range(5):
        backward(models[0], step)
        for param, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
            other.grad = param.grad.clone()  # pyright: ignore
        for optimizer in optimizers:
            optimizer.step()
        for param, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
            if step == 0:
                assert same(*(list(o.moments(p)) for o, p in zip(optimizers, (param, other), strict=True)))
    for param, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        differ = (param != other).double().mean()
        assert differ <= 0.02
        torch.testing.assert_close(param, other, rtol=0.02, atol=5e-3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("state_dtype", ["packed16", "packed12", "bfloat16"])
def test_a_bad_gradient_spoils_its_block_or_is_skipped(state_dtype: str, kernel: str) -> None:
    weight = nn.Parameter(torch.randn(4, 1024))
    optimizer = AdamW([weight], state_dtype=state_dtype, kernel=kernel)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    careful = copy.deepcopy(optimizer)
    kept = careful.param_groups[0]["params"][0]
    kept.grad = torch.randn_like(kept)
    kept.grad[2, 300] = math.nan
    before = [x.clone() for x in (kept.detach(), *careful.state[kept].values())]
    careful.skip_nonfinite = True
    careful.step()
    assert careful.skipped_steps == 1
    assert same(before, [kept.detach(), *careful.state[kept].values()])
    careful.skip_nonfinite = False
    careful.step()
    spoiled = torch.zeros(4, 1024, dtype=torch.bool)
    spoiled[2, 300 if state_dtype == "bfloat16" else slice(256, 512)] = True
    exp_avg, exp_avg_sq = careful.moments(kept)
    assert torch.equal(exp_avg.isfinite(), ~spoiled)
    assert not exp_avg_sq[2, 300].isfinite()
    assert torch.equal(kept.isnan().nonzero(), torch.tensor([[2, 300]]))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("options", STORAGES, ids=str)
def test_lr_zero_changes_no_weight(options: dict[str, Any], kernel: str) -> None:
    model = network(torch.bfloat16)
    optimizer = AdamW(model.parameters(), lr=1e-2, kernel=kernel, **options)
    train(model, optimizer, range(2))
    before = [(p.detach().clone(), optimizer.master(p)) for p in model.parameters()]
    optimizer.param_groups[0]["lr"] = 0.0
    train(model, optimizer, range(2, 5))
    for param, (weight, long) in zip(model.parameters(), before, strict=True):
        assert torch.equal(param, weight)
        assert torch.equal(optimizer.master(param), long)


@pytest.mark.parametrize("kernel", KERNELS)
def test_second_moments_in_bfloat16_do_not_freeze(kernel: str) -> None:
    """torch and optax stop at .25 where the exact value goes from .777 to .0053."""
    weight = nn.Parameter(torch.zeros(8, 1024))
    optimizer = AdamW([weight], lr=0.0, state_dtype="bfloat16", kernel=kernel)
    exact = 0.0
    for step in range(3000 if kernel == "native" else 600):
        size = 1.0 if step < (1500 if kernel == "native" else 300) else 0.01
        weight.grad = torch.full_like(weight, size)
        exact = 0.999 * exact + 0.001 * size**2
        optimizer.step()
    assert float(optimizer.moments(weight)[1].double().mean()) == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("layout", ["transposed", "channels_last", "strided"])
def test_any_layout_is_right(layout: str, kernel: str) -> None:
    """Rows are those of the indices, whatever lies where in memory: the same bits as contiguous."""
    shape = (16, 40, 3, 3) if layout == "channels_last" else (72, 80)
    values, grads = torch.randn(shape), [torch.randn(shape) for _ in range(3)]

    def arranged(x: torch.Tensor) -> torch.Tensor:
        if layout == "transposed":
            return x.t().contiguous().t()
        if layout == "strided":
            return torch.stack((x, x), -1)[..., 0]
        return x.contiguous(memory_format=torch.channels_last)

    odd, even = nn.Parameter(arranged(values)), nn.Parameter(values.clone())
    a = AdamW([odd], state_dtype="packed16")
    b = AdamW([even], state_dtype="packed16", kernel="eager")
    for grad in grads:
        odd.grad, even.grad = arranged(grad), grad.clone()
        a.step()
        b.step()
    assert a.kernel_choices()[0][1] == "eager"
    assert "row-major" in a.kernel_choices()[0][2] or "gaps" in a.kernel_choices()[0][2] or native.missing
    assert torch.equal(odd, even)
    assert torch.equal(a.state[odd]["packed16"], b.state[even]["packed16"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_dtype": "int8"}, "state_dtype='int8' must be one of 'float32', 'bfloat16'"),
        ({"master_weight_bits": 16}, "master_weight_bits=16 must be None, 24 or 32"),
        ({"master_weight_bits": True}, "master_weight_bits=True must be None, 24 or 32"),
        ({"stochastic_rounding": "yes"}, "stochastic_rounding='yes' must be True, False, or None"),
        ({"seed": 0.5}, "seed=0.5 must be an integer"),
        ({"amsgrad": True, "state_dtype": "packed16"}, "running maximum climbs"),
        ({"amsgrad": True, "state_dtype": "bfloat16"}, "running maximum climbs"),
        ({"differentiable": True, "state_dtype": "packed12"}, "rounding to fewer bits has no gradient"),
    ],
)
def test_what_cannot_be_had_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdamW([nn.Parameter(torch.randn(4))], **options)
    with pytest.raises(ValueError, match=message):
        AdamW([{"params": [nn.Parameter(torch.randn(4))], **options}])


def test_float16_has_no_master_and_says_why() -> None:
    with pytest.raises(ValueError, match=r"parameter 0 is float16, and its exponent is shorter"):
        AdamW([nn.Parameter(torch.randn(4).half())], master_weight_bits=24)


def test_a_state_of_another_shape_is_refused() -> None:
    first, second = nn.Parameter(torch.randn(64, 64)), nn.Parameter(torch.randn(64, 128))
    optimizer = AdamW([first], state_dtype="packed16")
    first.grad = torch.randn_like(first)
    optimizer.step()
    for state_dtype in ("packed16", "float32"):
        other = AdamW([second], state_dtype=state_dtype)
        with pytest.raises(ValueError, match=r"packed16 of parameter 0 is torch.uint8 of shape \(64, 64, 2\)"):
            other.load_state_dict(optimizer.state_dict())
        assert not other.state


def test_a_checkpoint_does_not_change_the_storage() -> None:
    model = network(torch.bfloat16)
    first = AdamW(model.parameters(), state_dtype="packed16", master_weight_bits=24)
    train(model, first, range(1))
    second = AdamW(model.parameters(), state_dtype="bfloat16", stochastic_rounding=False, seed=9)
    second.load_state_dict(first.state_dict())
    group = second.param_groups[0]
    assert (group["state_dtype"], group["master_weight_bits"], group["stochastic_rounding"]) == (
        "bfloat16",
        None,
        False,
    )
    assert group["seed"] == 0  # of the run that goes on
    assert "param_low" not in second.state[model[0].weight]


def test_groups_may_differ() -> None:
    model = network(torch.bfloat16)
    groups = param_groups(model, weight_decay=0.1)
    groups[0]["state_dtype"] = "packed12"
    optimizer = AdamW(groups, lr=1e-3, master_weight_bits=24)
    train(model, optimizer, range(2))
    assert "packed12" in optimizer.state[model[0].weight]
    assert "param_low" in optimizer.state[model[0].bias]


def test_master_without_a_master_is_the_parameter() -> None:
    weight = nn.Parameter(torch.randn(5).bfloat16())
    optimizer = AdamW([weight])
    assert torch.equal(optimizer.master(weight), weight.float())
    with pytest.raises(ValueError, match="not in this optimizer's groups"):
        optimizer.master(nn.Parameter(torch.randn(5)))


def test_capturable_steps_draw_the_same_bits() -> None:
    """Where a tensor holds the number of the step, the key is computed from it."""
    models = [network(torch.bfloat16) for _ in range(2)]
    options = {"lr": 1e-2, "state_dtype": "packed16", "master_weight_bits": 24, "kernel": "eager"}
    plain, capturable = (
        AdamW(models[0].parameters(), **options),
        AdamW(models[1].parameters(), capturable=True, **options),
    )
    train(models[0], plain, range(3))
    train(models[1], capturable, range(3))
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert (plain.master(a) != capturable.master(b)).double().mean() < 0.01


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("edit", [lambda p: p.clamp_(min=0), lambda p: p[5:10].zero_(), lambda p: p.fill_(0.5)])
@pytest.mark.parametrize("bits", [24, 32])
def test_weights_may_be_changed_by_hand(bits: int, edit: Any, kernel: str) -> None:
    """Low bits of what was there before move a weight by less than half a last place, and make no NaN."""
    weight = nn.Parameter(torch.randn(64, 64).bfloat16())
    optimizer = AdamW([weight], lr=1e-3, master_weight_bits=bits, kernel=kernel)
    for _ in range(3):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
    with torch.no_grad():
        edit(weight)
    edited = weight.detach().clone()
    far = (optimizer.master(weight) - edited.float()).abs()
    assert (far <= edited.float().abs() * 2.0**-8 + 2.0**-130).all()
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    assert optimizer.master(weight).isfinite().all()
    assert (weight.float() - edited.float()).abs().max() < 0.02


def test_moments_are_read_as_they_are_stored() -> None:
    """Not as the group wishes now, which the next step brings about; nor after the parameter's dtype changed."""
    for before, after in product(STATE_DTYPES, STATE_DTYPES):
        weight = nn.Parameter(torch.randn(64, 64))
        optimizer = AdamW([weight], state_dtype=before)
        weight.grad = torch.randn_like(weight)
        optimizer.step()
        exp_avg, exp_avg_sq = optimizer.moments(weight)
        optimizer.param_groups[0]["state_dtype"] = after
        weight.grad = None
        weight.data = weight.data.bfloat16()
        assert same([exp_avg, exp_avg_sq], list(optimizer.moments(weight)))
        saved = optimizer.state_dict(decoded=True)["state"][0]
        assert same([exp_avg, exp_avg_sq], [saved["exp_avg"], saved["exp_avg_sq"]])
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        assert (optimizer.moments(weight)[0] - 0.9 * exp_avg).abs().max() <= 0.25 * exp_avg.abs().max()


@pytest.mark.parametrize("kernel", KERNELS)
def test_master_inside_averaged_is_the_average(kernel: str) -> None:
    weight = nn.Parameter(torch.randn(64, 64).bfloat16())
    optimizer = AdamW([weight], lr=1e-2, master_weight_bits=32, ema_decay=0.9, kernel=kernel)
    for _ in range(3):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
    before = [weight.detach().clone(), optimizer.master(weight)]
    with optimizer.averaged():
        assert torch.equal(optimizer.master(weight), optimizer.state[weight]["ema"])
    assert same(before, [weight.detach(), optimizer.master(weight)])


def test_what_a_checkpoint_or_a_move_makes_impossible_is_refused() -> None:
    weight = nn.Parameter(torch.randn(64, 64).bfloat16())
    theirs = torch.optim.AdamW([weight], amsgrad=True)
    weight.grad = torch.randn_like(weight)
    theirs.step()
    for state_dtype in ("param", "packed16"):
        ours = AdamW([weight], state_dtype=state_dtype)
        with pytest.raises(ValueError, match="amsgrad=True"):
            ours.load_state_dict(theirs.state_dict())
    moved = nn.Parameter(torch.randn(64, 64))
    ours = AdamW([moved], master_weight_bits=24)
    moved.data = moved.data.half()
    moved.grad = torch.randn_like(moved)
    with pytest.raises(ValueError, match="parameter 0 of group 0 is float16, and its exponent"):
        ours.step()


def test_eager_steps_large_tensors_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bits do not depend on how many."""
    found = []
    for elements in (1 << 20, 3000):
        monkeypatch.setattr("adamas.kernels.eager.ELEMENTS", elements)
        model = network(torch.bfloat16)
        optimizer = AdamW(
            model.parameters(), state_dtype="packed12", master_weight_bits=24, ema_decay=0.9, kernel="eager"
        )
        for step in range(3):
            for i, param in enumerate(model.parameters()):
                param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(step * 10 + i)).bfloat16()
            optimizer.step()
        found.append(everything(model, optimizer))
    assert same(*found)
