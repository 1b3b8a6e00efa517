"""torch.optim.Optimizer's contract: closures, hooks, groups, schedulers, AMP, copies, compile; and what we add."""

from __future__ import annotations

import copy
import io
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from adamas.torch import Adam, AdamW
from tests.conftest import KERNELS, needs_native


def model_with(optimizer_class: Any, **options: Any) -> tuple[torch.nn.Module, Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    return model, optimizer_class(model.parameters(), **options)


def backward(model: torch.nn.Module, seed: int = 0) -> torch.Tensor:
    x = torch.randn(10, 6, generator=torch.Generator().manual_seed(seed))
    loss = model(x).square().mean()
    loss.backward()
    return loss


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([param.detach().flatten().clone() for param in model.parameters()])


def test_is_a_torch_optimizer_with_torchs_signature() -> None:
    import inspect

    for ours, theirs in ((Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)):
        assert issubclass(ours, torch.optim.Optimizer)
        mine, reference = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
        positional = [p for p in reference.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert [p.name for p in positional] == [p.name for p in mine.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        for name, parameter in reference.items():
            assert mine[name].default == parameter.default


def test_closure_runs_with_gradients_and_its_loss_is_returned() -> None:
    model, optimizer = model_with(AdamW)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.no_grad():
            pass
        assert torch.is_grad_enabled()
        return backward(model)

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert loss > 0
    assert optimizer.step() is None


def test_hooks_run_in_order_and_may_replace_arguments() -> None:
    model, optimizer = model_with(AdamW)
    backward(model)
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    handle = register_optimizer_step_post_hook(lambda *_: seen.append("global"))
    optimizer.step()
    handle.remove()
    optimizer.step()
    assert seen == ["pre", "post", "global", "pre", "post"]


@pytest.mark.parametrize("optimizer_class", [AdamW, torch.optim.AdamW])
def test_pre_hooks_may_replace_the_arguments(optimizer_class: Any) -> None:
    _, optimizer = model_with(optimizer_class)
    given: list[Any] = []

    def replace(_: Any, args: Any, kwargs: Any) -> Any:
        given.append((len(args), set(kwargs)))
        return args, {"closure": lambda: 42}

    optimizer.register_step_pre_hook(replace)
    assert optimizer.step() == 42
    assert optimizer.step(closure=lambda: 7) == 42
    assert given == [(1, set()), (1, {"closure"})]


def test_profiler_sees_the_step() -> None:
    model, optimizer = model_with(AdamW)
    backward(model)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        optimizer.step()
    assert any("Optimizer.step#AdamW.step" in event.key for event in profile.key_averages())


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_are_not_modified(kernel: str) -> None:
    model, optimizer = model_with(AdamW, kernel=kernel, maximize=True, weight_decay=0.1)
    backward(model)
    before = [param.grad.clone() for param in model.parameters()]
    optimizer.step()
    assert all(torch.equal(param.grad, grad) for param, grad in zip(model.parameters(), before, strict=True))


def test_groups_have_their_own_values_and_may_be_added_later() -> None:
    params = [torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(3)]
    ours = AdamW([{"params": params[:1], "lr": 0.1}, {"params": params[1:2], "weight_decay": 0.5}], lr=0.01)
    mirror = [torch.nn.Parameter(param.detach().clone()) for param in params]
    theirs = torch.optim.AdamW(
        [{"params": mirror[:1], "lr": 0.1}, {"params": mirror[1:2], "weight_decay": 0.5}], lr=0.01
    )
    for step in range(6):
        if step == 3:
            ours.add_param_group({"params": params[2:], "betas": (0.5, 0.9)})
            theirs.add_param_group({"params": mirror[2:], "betas": (0.5, 0.9)})
        for param, other in zip(params, mirror, strict=True):
            param.grad = other.grad = torch.tensor([1.0, step - 2.0], dtype=torch.float64)
        ours.step()
        theirs.step()
    for param, other in zip(params, mirror, strict=True):
        torch.testing.assert_close(param, other, rtol=1e-13, atol=0)


def test_parameters_without_gradients_rest_and_keep_their_own_count() -> None:
    params = [torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(4)]
    mirror = [torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(4)]
    ours, theirs = AdamW(params), torch.optim.AdamW(mirror)
    random = np.random.default_rng(0)
    for _ in range(40):
        for param, other in zip(params, mirror, strict=True):
            grad = torch.tensor(random.normal(size=2)) if random.random() < 0.6 else None
            param.grad, other.grad = grad, grad
        ours.step()
        theirs.step()
    for param, other in zip(params, mirror, strict=True):
        torch.testing.assert_close(param, other, rtol=1e-12, atol=0)
        assert ours.state[param]["step"] == theirs.state[other]["step"]


def test_steps_are_counted_in_one_tensor() -> None:
    """1,000 parameters: their counters are views of one, so that a step writes it once."""
    params = [torch.nn.Parameter(torch.ones(1)) for _ in range(1000)]
    optimizer = AdamW(params)
    for param in params:
        param.grad = torch.ones(1)
    optimizer.step()
    optimizer.step()
    storages = {optimizer.state[param]["step"].untyped_storage().data_ptr() for param in params}
    assert len(storages) == 1
    assert all(optimizer.state[param]["step"] == 2 for param in params)


@pytest.mark.parametrize("change", ["state", "entry", "moment", "step in place", "step", "clear", "data"])
def test_changes_to_state_from_outside_take_effect(change: str) -> None:
    """Whatever a user does to `opt.state` between steps, the next step starts from it, as torch's does."""
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        param = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = optimizer_class([param], lr=0.1)
        for step in range(6):
            param.grad = torch.tensor([1.0, -2.0, step], dtype=torch.float64)
            optimizer.step()
            if step != 2:
                continue
            state = optimizer.state[param]
            if change == "state":
                optimizer.state = copy.deepcopy(torch.optim.AdamW([param]).state)
            elif change == "entry":
                optimizer.state[param] = {key: value.clone() * 0.5 for key, value in state.items() if key != "step"} | {
                    "step": torch.tensor(7.0)
                }
            elif change == "moment":
                state["exp_avg"] = torch.full_like(state["exp_avg"], 0.25)
            elif change == "step in place":
                state["step"].fill_(11)
            elif change == "step":
                state["step"] = torch.tensor(1.0)
            elif change == "clear":
                optimizer.state.clear()
            else:
                state["exp_avg_sq"].data = torch.full((3,), 0.5, dtype=torch.float64)
        results.append(param.detach())
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=0)


def test_groups_may_be_edited_in_place() -> None:
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    for param in params:
        param.grad = torch.ones(2)
    optimizer = AdamW(params, lr=0.1, weight_decay=0.0)
    optimizer.step()
    removed = optimizer.param_groups[0]["params"].pop()
    before = removed.detach().clone()
    optimizer.param_groups[0]["amsgrad"] = True
    optimizer.step()
    assert torch.equal(removed.detach(), before)
    assert "max_exp_avg_sq" in optimizer.state[params[0]]


SCHEDULERS = {
    "onecycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=12),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=12),
    "warm restarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=4),
    "cyclic": lambda o: torch.optim.lr_scheduler.CyclicLR(o, 1e-3, 0.1, step_size_up=4, cycle_momentum=True),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "sequential": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [torch.optim.lr_scheduler.LinearLR(o), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)],
        milestones=[5],
    ),
}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")  # SequentialLR's, in torch 2.6
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_act_as_on_torchs(name: str) -> None:
    """Learning rates and, with OneCycleLR and CyclicLR, betas written between steps."""
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        model, optimizer = model_with(optimizer_class, lr=0.01, weight_decay=0.1)
        model.double()
        scheduler = SCHEDULERS[name](optimizer)
        for step in range(12):
            optimizer.zero_grad()
            x = torch.randn(10, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
            model(x).square().mean().backward()
            optimizer.step()
            if step < 11:
                scheduler.step()
        results.append(weights(model))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("fused", [None, True])
def test_grad_scaler(kernel: str, fused: bool | None) -> None:
    """Scaled and unscaled training agree; a step with an overflow changes no bit."""
    if kernel == "eager" and fused:
        pytest.skip("fused demands native")
    options: dict[str, Any] = {"fused": fused} if fused else {"kernel": kernel}
    plain_model, plain = model_with(AdamW, **options)
    model, optimizer = model_with(AdamW, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    assert optimizer._step_supports_amp_scaling is bool(fused)
    for step in range(5):
        for each in (plain, optimizer):
            each.zero_grad()
        backward(plain_model, step)
        plain.step()
        x = torch.randn(10, 6, generator=torch.Generator().manual_seed(step))
        scaler.scale(model(x).square().mean()).backward()
        if step == 3:  # an overflow first: skipped, then the same batch again
            kept = [param.grad.clone() for param in model.parameters()]
            before = weights(model), copy.deepcopy(optimizer.state_dict())
            next(iter(model.parameters())).grad[0, 0] = math.inf
            scaler.step(optimizer)
            assert torch.equal(weights(model), before[0])
            for key, state in optimizer.state_dict()["state"].items():
                assert all(torch.equal(value, before[1]["state"][key][name]) for name, value in state.items())
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
            scaler.scale(torch.ones(()))
            for param, grad in zip(model.parameters(), kept, strict=True):
                param.grad = grad
        scaler.step(optimizer)
        scaler.update()
    torch.testing.assert_close(weights(model), weights(plain_model), rtol=1e-6, atol=1e-7)


def test_loading_a_checkpoint_does_not_break_the_next_amp_step() -> None:
    """A checkpoint of a non-fused optimizer leaves `fused=True` as constructed (torch: the next AMP step fails)."""
    if "native" not in KERNELS:
        pytest.skip("fused demands native")
    model, source = model_with(torch.optim.AdamW)
    backward(model)
    source.step()
    model, optimizer = model_with(AdamW, fused=True)
    optimizer.load_state_dict(source.state_dict())
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(model(torch.ones(1, 6)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert optimizer.param_groups[0]["fused"] is True
    assert optimizer._step_supports_amp_scaling


@pytest.mark.parametrize("how", ["pickle", "deepcopy", "torch.save"])
def test_copies_continue_bit_for_bit(how: str) -> None:
    model, optimizer = model_with(AdamW, decay="independent", weight_decay=1e-3, lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()
    if how == "pickle":
        other_model, other = pickle.loads(pickle.dumps((model, optimizer)))
    elif how == "deepcopy":
        other_model, other = copy.deepcopy((model, optimizer))
    else:
        other_model = copy.deepcopy(model)
        other = AdamW(other_model.parameters(), decay="independent", weight_decay=1e-3, lr=0.01)
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
    for each_model, each in ((model, optimizer), (other_model, other)):
        for step in range(3, 6):
            each.zero_grad()
            backward(each_model, step)
            each.step()
    assert torch.equal(weights(model), weights(other_model))


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")  # the compiler's own
def test_torch_compile_of_a_step() -> None:
    model, optimizer = model_with(AdamW)
    twin, plain = model_with(AdamW)
    compiled = torch.compile(optimizer.step, backend="eager")
    for step in range(3):
        for each, one in ((model, optimizer), (twin, plain)):
            one.zero_grad()
            backward(each, step)
        compiled()
        plain.step()
    assert torch.equal(weights(model), weights(twin))

    @torch.compile(backend="eager")
    def train(x: torch.Tensor) -> None:
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    before = weights(model)
    optimizer.zero_grad()
    train(torch.ones(2, 6))
    assert not torch.equal(weights(model), before)


def test_sparse_gradients_are_refused_as_in_torch() -> None:
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    dense = torch.nn.Parameter(torch.ones(2))
    optimizer = Adam([dense, embedding.weight])
    dense.grad = torch.ones(2)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="does not support sparse gradients, please consider SparseAdam"):
        optimizer.step()
    assert torch.equal(dense.detach(), torch.ones(2))
    assert not optimizer.state


@needs_native
def test_a_gradient_that_turns_sparse_is_refused_too() -> None:
    embedding = torch.nn.Embedding(5, 2)
    optimizer = Adam(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    optimizer.step()
    before = embedding.weight.detach().clone()
    embedding.weight.grad = embedding.weight.grad.to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert torch.equal(embedding.weight.detach(), before)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_parameters_have_float32_moments(dtype: torch.dtype, kernel: str) -> None:
    param = torch.nn.Parameter(torch.ones(4, dtype=dtype))
    optimizer = AdamW([param], kernel=kernel)
    param.grad = torch.full((4,), 1e-3, dtype=dtype)
    optimizer.step()
    exp_avg, exp_avg_sq = optimizer.moments(param)
    assert exp_avg.dtype == exp_avg_sq.dtype == torch.float32
    torch.testing.assert_close(exp_avg_sq, torch.full((4,), 1e-6) * 1e-3, rtol=0.01, atol=0)


def test_moments_are_copies_and_zero_before_the_first_step() -> None:
    param, stranger = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))
    optimizer = AdamW([param])
    assert all(torch.equal(moment, torch.zeros(4)) for moment in optimizer.moments(param))
    param.grad = torch.ones(4)
    optimizer.step()
    optimizer.moments(param)[0].fill_(7)
    assert (optimizer.moments(param)[0] < 1).all()
    with pytest.raises(ValueError, match="not in this optimizer"):
        optimizer.moments(stranger)


def test_kernel_choices_give_reasons() -> None:
    params = [
        torch.nn.Parameter(torch.ones(2)),
        torch.nn.Parameter(torch.ones(2)),
        torch.nn.Parameter(torch.ones(2, dtype=torch.complex64)),
    ]
    optimizer = AdamW(params)
    before = optimizer.kernel_choices()
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    rows = optimizer.kernel_choices()
    assert rows == before
    assert [row[0] for row in rows] == ["group 0: 2 x float32 on cpu", "group 0: 1 x complex64 on cpu"]
    assert rows[1][1] == "eager"
    assert "complex64" in rows[1][2] or "not built" in rows[1][2]


def test_state_bytes_are_torchs_eight_a_parameter() -> None:
    model, optimizer = model_with(AdamW)
    assert optimizer.state_bytes() == 0
    backward(model)
    optimizer.step()
    count = sum(param.numel() for param in model.parameters())
    assert optimizer.state_bytes() == 8 * count + 4 * len(list(model.parameters()))


def test_no_grad_makes_no_difference() -> None:
    model, optimizer = model_with(AdamW)
    twin, plain = model_with(AdamW)
    for step in range(3):
        for each, one in ((model, optimizer), (twin, plain)):
            one.zero_grad()
            backward(each, step)
        with torch.no_grad():
            optimizer.step()
        plain.step()
    assert torch.equal(weights(model), weights(twin))


def test_large_models_can_be_moved_before_their_first_step() -> None:
    """States are made at the first step, where and as the parameter then is."""
    model, optimizer = model_with(AdamW)
    model.double()
    backward_input = torch.ones(1, 6, dtype=torch.float64)
    model(backward_input).sum().backward()
    optimizer.step()
    assert all(state["exp_avg"].dtype == torch.float64 for state in optimizer.state.values())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_distributed_checkpoint_machinery_changes_no_parameter() -> None:
    """`get_optimizer_state_dict` makes state by a step at lr = 0, in either decay convention."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    for options in ({}, {"decay": "independent", "weight_decay": 0.1}):
        model, optimizer = model_with(AdamW, lr=0.1, **options)
        before = weights(model)
        saved = get_optimizer_state_dict(model, optimizer)
        assert torch.equal(weights(model), before)
        set_optimizer_state_dict(model, optimizer, saved)
        backward(model)
        optimizer.step()
        assert not torch.equal(weights(model), before)
