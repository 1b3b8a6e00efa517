"""What torch's own optimizer and scheduler tests ask for, beyond its machinery: each beside torch.optim itself."""

from __future__ import annotations

import copy
import functools
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler, swa_utils

from adamas.torch import Adam, AdamW
from tests.conftest import needs_native

# SequentialLR's own, in torch 2.6
pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")

PAIRS = [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)]
both = pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["adam", "adamw"])
# float64: the two round differently in the last places only; 40 steps of size .1 keep that far below 1e-9.
CLOSE: dict[str, float] = {"rtol": 1e-9, "atol": 1e-11}


def problem(dtype: torch.dtype = torch.float64) -> tuple[nn.Parameter, nn.Parameter, Tensor]:
    random = torch.Generator().manual_seed(0)
    weight, bias, rows = (torch.randn(shape, generator=random, dtype=dtype) for shape in ((10, 5), (10,), (5,)))
    return nn.Parameter(weight), nn.Parameter(bias), rows


def descend(optimizer: Any, weight: Tensor, bias: Tensor, rows: Tensor) -> Tensor:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weight.mv(rows) + bias).square().sum()
        loss.backward()
        return loss

    return optimizer.step(closure)


def run(optimizer_class: Any, schedulers: Callable[[Any], list[Any]], steps: int = 40, **options: Any) -> list[Any]:
    """Weights, rates and betas of a run under schedulers."""
    weight, bias, rows = problem()
    optimizer = optimizer_class([weight, bias], **{"lr": 0.1, **options})
    plan = schedulers(optimizer)
    trace: list[Any] = []
    for _ in range(steps):
        loss = descend(optimizer, weight, bias, rows)
        for scheduler in plan:
            by_loss = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
            scheduler.step(loss.detach()) if by_loss else scheduler.step()
        group = optimizer.param_groups[0]
        trace.append([float(group["lr"]), *map(float, group["betas"])])
    return [weight.detach(), bias.detach(), torch.tensor(trace, dtype=torch.float64)]


def chained(optimizer: Any) -> list[Any]:
    parts = [lr_scheduler.ConstantLR(optimizer, 0.1, total_iters=5), lr_scheduler.ExponentialLR(optimizer, 0.9)]
    return [lr_scheduler.ChainedScheduler(parts, optimizer)]


def sequential(optimizer: Any) -> list[Any]:
    parts = [lr_scheduler.LinearLR(optimizer), lr_scheduler.CosineAnnealingLR(optimizer, 20)]
    return [lr_scheduler.SequentialLR(optimizer, parts, milestones=[7])]


SCHEDULES: dict[str, Callable[[Any], list[Any]]] = {
    "plateau": lambda o: [lr_scheduler.ReduceLROnPlateau(o, patience=1, threshold=0.5)],
    "cyclic, triangular2": lambda o: [lr_scheduler.CyclicLR(o, 0.01, 0.2, step_size_up=6, mode="triangular2")],
    "cyclic, exp_range": lambda o: [lr_scheduler.CyclicLR(o, 0.01, 0.2, step_size_up=6, mode="exp_range", gamma=0.9)],
    "one cycle, three phases": lambda o: [lr_scheduler.OneCycleLR(o, 0.2, total_steps=41, three_phase=True)],
    "one cycle, linear": lambda o: [lr_scheduler.OneCycleLR(o, 0.2, total_steps=41, anneal_strategy="linear")],
    "chained": chained,
    "sequential": sequential,
    "two at once": lambda o: [lr_scheduler.StepLR(o, 5), lr_scheduler.ReduceLROnPlateau(o, patience=2)],
    "polynomial": lambda o: [lr_scheduler.PolynomialLR(o, 30, power=0.9)],
    "multiplicative": lambda o: [lr_scheduler.MultiplicativeLR(o, lambda step: 0.95)],
    "swa": lambda o: [swa_utils.SWALR(o, swa_lr=0.01, anneal_epochs=10)],
}


@both
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedulers_lead_where_they_lead_with_torchs(schedule: str, ours: Any, theirs: Any) -> None:
    got, want = run(ours, SCHEDULES[schedule]), run(theirs, SCHEDULES[schedule])
    for mine, other in zip(got, want, strict=True):
        torch.testing.assert_close(mine, other, **CLOSE)
    assert len(want[2].unique(dim=0)) > 2  # something was scheduled


@both
@pytest.mark.parametrize("schedule", ["plateau", "sequential", "one cycle, linear", "cyclic, triangular2"])
def test_a_tensor_rate_is_scheduled_in_place(schedule: str, ours: Any, theirs: Any) -> None:
    got, want = (run(each, SCHEDULES[schedule], lr=torch.tensor(0.1, dtype=torch.float64)) for each in (ours, theirs))
    for mine, other in zip(got, want, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-8)  # torch keeps some tensor rates in float32


def test_a_scheduler_that_is_loaded_goes_on() -> None:
    """The usual three files: model, optimizer, scheduler; bit for bit."""

    def fresh() -> tuple[list[Any], Any, Any]:
        weight, bias, rows = problem(torch.float32)
        optimizer = AdamW([weight, bias], lr=0.1)
        return [weight, bias, rows], optimizer, lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=40)

    def go(parts: list[Any], optimizer: Any, scheduler: Any, steps: int) -> None:
        for _ in range(steps):
            descend(optimizer, *parts)
            scheduler.step()

    whole, stopped, resumed = fresh(), fresh(), fresh()
    go(*whole, 20)
    go(*stopped, 10)
    saved = copy.deepcopy([stopped[1].state_dict(), stopped[2].state_dict()])
    with torch.no_grad():
        for param, other in zip(resumed[0][:2], stopped[0][:2], strict=True):
            param.copy_(other)
    resumed[1].load_state_dict(saved[0])
    resumed[2].load_state_dict(saved[1])
    go(*resumed, 10)
    assert all(map(torch.equal, whole[0], resumed[0]))
    assert whole[1].param_groups[0]["betas"] == resumed[1].param_groups[0]["betas"]


def test_averaged_model_and_batch_norm_of_swa() -> None:
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1)).double()
        batches = [torch.randn(8, 4, dtype=torch.float64) for _ in range(10)]
        optimizer = optimizer_class(model.parameters(), lr=0.05)
        averaged = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
        scheduler = swa_utils.SWALR(optimizer, swa_lr=0.01)
        for batch in batches:
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
            averaged.update_parameters(model)
            scheduler.step()
        swa_utils.update_bn(batches, averaged)
        results.append([*averaged.parameters(), *averaged.buffers()])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-9)  # a batch norm divides by small deviations


# Hooks


def test_state_dict_hooks_run_in_order_and_may_replace_it() -> None:
    """Pre, then post; what a post hook returns is what is given; prepend and remove act."""
    weight, bias, rows = problem()
    optimizer = AdamW([weight, bias])
    descend(optimizer, weight, bias, rows)
    seen: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda _: seen.append("pre"))
    optimizer.register_state_dict_pre_hook(lambda _: seen.append("first"), prepend=True)

    def post(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        seen.append("post")
        return {**state_dict, "note": "mine"}

    handle = optimizer.register_state_dict_post_hook(post)
    assert optimizer.state_dict()["note"] == "mine"
    assert seen == ["first", "pre", "post"]
    handle.remove()
    assert "note" not in optimizer.state_dict()


def test_load_hooks_run_in_order_and_may_replace_it() -> None:
    """A pre hook may rewrite what is loaded (torch's answer to parameters in another order); its argument is a copy."""
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        weight, bias, rows = problem()
        source = optimizer_class([weight, bias])
        descend(source, weight, bias, rows)
        saved = copy.deepcopy(source.state_dict())
        optimizer = optimizer_class([bias, weight])
        seen: list[str] = []

        def swap(_: Any, state_dict: dict[str, Any], seen: list[str] = seen) -> dict[str, Any]:
            seen.append("pre")
            state = state_dict["state"]
            return {**state_dict, "state": {0: state[1], 1: state[0]}}

        optimizer.register_load_state_dict_pre_hook(swap)
        optimizer.register_load_state_dict_pre_hook(lambda *_, seen=seen: seen.append("first"), prepend=True)
        optimizer.register_load_state_dict_post_hook(lambda *_, seen=seen: seen.append("post"))
        handle = optimizer.register_load_state_dict_post_hook(lambda *_, seen=seen: seen.append("never"))
        handle.remove()
        optimizer.load_state_dict(saved)
        assert seen == ["first", "pre", "post"]
        assert saved["state"][0]["exp_avg"].shape == (10, 5)
        descend(optimizer, weight, bias, rows)
        results.append([weight, bias])
    torch.testing.assert_close(*results, **CLOSE)


@pytest.mark.parametrize("kind", ["state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post"])
def test_every_hook_survives_no_copy_but_acts_on_its_own(kind: str) -> None:
    """torch pickles an optimizer without its hooks; ours too, and the copy saves and loads."""
    for optimizer_class in (AdamW, torch.optim.AdamW):
        weight, bias, rows = problem()
        optimizer = optimizer_class([weight, bias])
        descend(optimizer, weight, bias, rows)
        seen: list[int] = []
        getattr(optimizer, f"register_{kind}_hook")(lambda *_, seen=seen: seen.append(1))
        other = copy.deepcopy(optimizer)
        other.load_state_dict(other.state_dict())
        assert seen == []
        optimizer.load_state_dict(optimizer.state_dict())
        assert seen == [1]


# Copies


@both
@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_copies_have_the_same_public_attributes(how: str, ours: Any, theirs: Any) -> None:
    weight, bias, rows = problem()
    optimizer = ours([weight, bias], max_norm=1.0, skip_nonfinite=True, ema_decay=0.9)
    descend(optimizer, weight, bias, rows)
    other = pickle.loads(pickle.dumps(optimizer)) if how == "pickle" else copy.deepcopy(optimizer)

    def public(each: Any) -> set[str]:
        return {name for name in vars(each) if not name.startswith("_")}

    assert public(other) == public(optimizer) >= public(theirs([weight])) - {"max_norm"}
    assert (other.max_norm, other.skip_nonfinite) == (1.0, True)
    assert repr(other) == repr(optimizer)
    assert other.defaults == optimizer.defaults


def test_repeated_groups_look_alike_in_the_state_dict() -> None:
    weight, bias, rows = problem()
    optimizer, other = AdamW([weight, bias]), AdamW([weight, bias])
    for each in (optimizer, other):
        descend(each, weight, bias, rows)
    other.param_groups.extend(other.param_groups)
    assert optimizer.state_dict()["param_groups"][-1] == other.state_dict()["param_groups"][-1]


# Parameters in every form


def same_run(make: Callable[[Any], tuple[Any, list[Tensor]]], steps: int = 5) -> None:
    """The optimizer that `make` builds steps its tensors as torch's does."""
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        optimizer, params = make(optimizer_class)
        random = torch.Generator().manual_seed(1)
        for _ in range(steps):
            for param in params:
                param.grad = torch.randn(param.shape, generator=random, dtype=param.dtype)
            optimizer.step()
        results.append([param.detach() for param in params])
    torch.testing.assert_close(*results, **CLOSE)


FORMS: dict[str, Callable[[list[nn.Parameter]], Any]] = {
    "generator": lambda params: (param for param in params),
    "tuple": tuple,
    "one tensor in a group": lambda params: [{"params": param} for param in params],
    "generator in a group": lambda params: [{"params": (param for param in params), "lr": 0.05}],
    "filter": lambda params: filter(lambda param: param.requires_grad, params),
    "dict's values": lambda params: {str(i): param for i, param in enumerate(params)}.values(),
    "ordered dict's values": lambda params: OrderedDict((str(i), param) for i, param in enumerate(params)).values(),
    "named": lambda params: [(str(i), param) for i, param in enumerate(params)],
    "a named generator in a group": lambda params: [{"params": ((str(i), param) for i, param in enumerate(params))}],
    "mixed groups": lambda params: [{"params": params[:1], "weight_decay": 0.5}, {"params": params[1:], "eps": 1e-3}],
}


@pytest.mark.parametrize("form", FORMS)
def test_parameters_come_in_every_form(form: str) -> None:
    def make(optimizer_class: Any) -> tuple[Any, list[Tensor]]:
        weight, bias, _ = problem()
        return optimizer_class(FORMS[form]([weight, bias]), lr=0.1), [weight, bias]

    same_run(make)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ([], ValueError),
        (torch.ones(3), TypeError),
        ([{"params": {torch.ones(3)}}], TypeError),
        ([1.0], TypeError),
        ([torch.ones(3, requires_grad=True) * 2], ValueError),
        (["weight"], TypeError),
        ([("weight", nn.Parameter(torch.ones(1))), nn.Parameter(torch.ones(1))], ValueError),
    ],
    ids=["none", "a tensor", "a set in a group", "numbers", "a result", "a name", "half named"],
)
def test_what_are_no_parameters_is_refused_as_in_torch(params: Any, error: type[Exception]) -> None:
    for optimizer_class in (AdamW, torch.optim.AdamW):
        with pytest.raises(error):
            optimizer_class(params)


def test_a_parameter_of_two_groups_is_refused() -> None:
    weight, bias, _ = problem()
    for optimizer_class in (AdamW, torch.optim.AdamW):
        with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
            optimizer_class([{"params": [weight]}, {"params": [weight, bias]}])
        optimizer = optimizer_class([weight])
        with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
            optimizer.add_param_group({"params": [weight]})
        assert len(optimizer.param_groups) == 1


def test_groups_added_while_training() -> None:
    """The new group takes the defaults, its parameters their first step."""

    def make(optimizer_class: Any) -> tuple[Any, list[Tensor]]:
        weight, bias, rows = problem()
        optimizer = optimizer_class([weight], lr=0.1, weight_decay=0.3)
        for _ in range(3):
            descend(optimizer, weight, bias, rows)
        optimizer.add_param_group({"params": [bias], "betas": (0.5, 0.9)})
        return optimizer, [weight, bias]

    same_run(make)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.t(),
    "a column": lambda x: torch.stack([x, x], dim=-1)[..., 0],
    "every other": lambda x: torch.cat([x, x], dim=1)[:, ::2],
    "channels last": lambda x: x.reshape(2, 5, 1, 5).contiguous(memory_format=torch.channels_last),
    "offset": lambda x: torch.cat([x.flatten()[:1], x.flatten()])[1:],
    "no dimension": lambda x: x[0, 0],
    "empty": lambda x: x[:0],
}


@pytest.mark.parametrize("kernel", [None, "eager"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_in_memory(layout: str, kernel: str | None) -> None:
    def make(optimizer_class: Any) -> tuple[Any, list[Tensor]]:
        values = torch.randn(10, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        param = LAYOUTS[layout](values.clone()).detach().requires_grad_()
        options = {"kernel": kernel} if optimizer_class is AdamW else {}
        return optimizer_class([param], lr=0.1, **options), [param]

    same_run(make)


@both
@pytest.mark.parametrize("amsgrad", [False, True])
def test_complex_parameters_are_pairs_of_reals(amsgrad: bool, ours: Any, theirs: Any) -> None:
    """Rosenbrock's function of a complex pair: as with real and imaginary parts apart, and as torch."""

    def rosenbrock(x: Tensor) -> Tensor:
        return ((1 - x[0]).abs() ** 2 + 100 * (x[1] - x[0] ** 2).abs() ** 2).sum()

    start = torch.tensor([1.5 + 0.5j, 1.5 - 0.25j], dtype=torch.complex128)
    results = []
    for optimizer_class in (ours, theirs):
        whole = nn.Parameter(start.clone())
        parts = [nn.Parameter(start.real.clone()), nn.Parameter(start.imag.clone())]
        one, two = (optimizer_class(params, lr=0.01, amsgrad=amsgrad) for params in ([whole], parts))
        for _ in range(20):
            one.zero_grad()
            rosenbrock(whole).backward()
            one.step()
            two.zero_grad()
            rosenbrock(torch.complex(*parts)).backward()
            two.step()
        torch.testing.assert_close(whole.detach(), torch.complex(*parts).detach(), **CLOSE)
        results.append(whole.detach())
    torch.testing.assert_close(*results, **CLOSE)


# Older checkpoints, defaults, precision


@both
@pytest.mark.parametrize(
    "missing", ["maximize", "foreach", "capturable", "differentiable", "fused", "amsgrad", "decoupled_weight_decay"]
)
def test_older_checkpoints_lack_keys(missing: str, ours: Any, theirs: Any) -> None:
    weight, bias, rows = problem()
    optimizer = theirs([weight, bias])
    descend(optimizer, weight, bias, rows)
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        group.pop(missing, None)
    for state in saved["state"].values():
        state["step"] = state["step"].item()  # before torch 1.12 a number
    loaded = ours([weight, bias])
    loaded.load_state_dict(saved)
    descend(loaded, weight, bias, rows)
    assert float(loaded.state[weight]["step"]) == 2
    assert loaded.param_groups[0][missing] == ours([weight]).param_groups[0][missing]


def test_defaults_that_are_changed_later_reach_new_groups() -> None:
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        weight, bias, _ = problem()
        optimizer = optimizer_class([weight], lr=0.1)
        optimizer.defaults["weight_decay"] = 0.5
        optimizer.defaults["lr"] = 0.25
        optimizer.add_param_group({"params": [bias]})
        bias.grad = torch.zeros_like(bias)
        optimizer.step()
        results.append([bias.detach(), torch.tensor([group["lr"] for group in optimizer.param_groups]).double()])
    torch.testing.assert_close(*results, **CLOSE)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.25]


def test_a_rosenbrock_step_of_each_coordinate_in_turn() -> None:
    """torch's torture test: one of two gradients is zero at every step, and a closure recomputes them."""
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        point = nn.Parameter(torch.tensor([1.5, 1.5], dtype=torch.float64))
        optimizer = optimizer_class([point], lr=0.05, weight_decay=0.0)
        scheduler = lr_scheduler.ExponentialLR(optimizer, 0.999)

        def closure(which: int, optimizer: Any = optimizer, point: Any = point) -> Tensor:
            optimizer.zero_grad()
            x, y = point
            loss = (1 - x) ** 2 + 100 * (y - x**2) ** 2
            loss.backward()
            point.grad[1 - which] = 0.0
            return loss

        for step in range(600):
            optimizer.step(functools.partial(closure, step % 2))
            scheduler.step()
        results.append(point.detach())
    assert (results[1] - 1).norm() < 0.6  # from 0.71
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-8)  # the valley amplifies the last place by 600 steps


@needs_native
@both
@pytest.mark.parametrize("overflow", [False, True])
def test_a_fused_step_under_a_scaler_is_torchs(overflow: bool, ours: Any, theirs: Any) -> None:
    """Weights, counts and the scale after three batches, the second of which overflows."""
    results = []
    for optimizer_class in (ours, theirs):
        weight, bias, rows = problem(torch.float32)
        optimizer = optimizer_class([weight, bias], lr=0.1, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2)
        for step in range(3):
            optimizer.zero_grad()
            scaler.scale((weight.mv(rows) + bias).square().sum()).backward()
            if overflow and step == 1:
                bias.grad[3] = torch.inf
            scaler.step(optimizer)
            scaler.update()
        counts = torch.tensor([float(optimizer.state[param]["step"]) for param in (weight, bias)])
        results.append([weight.detach(), bias.detach(), counts, torch.tensor(scaler.get_scale())])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)
    assert results[0][2].tolist() == [2.0 if overflow else 3.0] * 2


@needs_native
def test_fused_does_nothing_where_an_infinity_was_found() -> None:
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        weight, bias, rows = problem(torch.float32)
        optimizer = optimizer_class([weight, bias], fused=True)
        optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(1.0)
        before = weight.detach().clone(), bias.detach().clone()
        descend(optimizer, weight, bias, rows)
        assert torch.equal(weight, before[0])
        assert torch.equal(bias, before[1])
        results.append([float(optimizer.state[param].get("step", 0.0)) for param in (weight, bias)])
    assert results[0] == results[1] == [0.0, 0.0]


@both
def test_a_step_without_gradients_does_nothing(ours: Any, theirs: Any) -> None:
    for optimizer_class in (ours, theirs):
        weight, bias, _ = problem()
        optimizer = optimizer_class([weight, bias])
        before = weight.detach().clone()
        optimizer.step()
        assert torch.equal(weight, before)
        assert all(not optimizer.state.get(param) for param in (weight, bias))


@both
def test_frozen_and_thawed_parameters(ours: Any, theirs: Any) -> None:
    """A parameter without gradient for a while keeps moments and count, as fine-tuning by stages wants."""
    results = []
    for optimizer_class in (ours, theirs):
        weight, bias, rows = problem()
        optimizer = optimizer_class([weight, bias], lr=0.1, weight_decay=0.1)
        for step in range(12):
            bias.requires_grad_(not 4 <= step < 8)
            descend(optimizer, weight, bias, rows)
        results.append([weight.detach(), bias.detach()])
        assert [float(optimizer.state[param]["step"]) for param in (weight, bias)] == [12, 8]
    torch.testing.assert_close(*results, **CLOSE)
