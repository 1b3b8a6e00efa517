"""What only eager promises: lazy views, tensors that change under it, steps that read nothing from the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from adamas.kernels import eager
from adamas.kernels.bucket import PLAIN, Bucket, MismatchError, Storage
from adamas.scalars import Hyper, StepScalars
from adamas.state.conform import conform
from adamas.torch import AdamW

HYPER = Hyper(lr=0.1, weight_decay=0.5, decay="lr", cautious_decay=True, ema_decay=0.9)


def bucket_of(param: torch.Tensor, storage: Storage = PLAIN, **options: Any) -> Bucket:
    """A bucket of one parameter whose state is made anew, with an average."""
    state = conform({}, param, storage, ("ema",), "param")
    state.pop("step", None)
    return Bucket([param], [state], storage, averages=True, **options)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("view", [torch.conj, torch._neg_view, lambda x: torch._neg_view(x.conj())])
def test_lazy_views_of_complex_gradients_are_resolved(
    view: Callable[[torch.Tensor], torch.Tensor], differentiable: bool, foreach: bool
) -> None:
    results = []
    for lazy in (True, False):
        torch.manual_seed(0)
        param, grad = torch.randn(5, dtype=torch.complex64), view(torch.randn(5, dtype=torch.complex64))
        grad = grad if lazy else grad.resolve_conj().resolve_neg()
        bucket = bucket_of(param, foreach=foreach, differentiable=differentiable)
        prepared = eager.prepare(bucket)
        eager.take(prepared, [grad])
        squares = eager.squares(prepared)
        eager.step(prepared, [StepScalars.of(HYPER, 1)], None, zero_grad=not differentiable)
        assert differentiable or not grad.resolve_conj().resolve_neg().any()
        results.append([param, *bucket.states[0].values(), *squares])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("view", [torch.conj, torch._neg_view])
def test_lazy_views_as_complex_parameters_are_refused(view: Callable[[torch.Tensor], torch.Tensor]) -> None:
    param = view(torch.randn(5, dtype=torch.complex64))
    with pytest.raises(ValueError, match="param 0 is a lazily conjugated or negated view"):
        eager.prepare(Bucket([param], [{}]))


CHANGES: dict[str, Callable[[Bucket], Any]] = {
    "param.bfloat16()": lambda b: setattr(b.params[0], "data", b.params[0].data.bfloat16()),
    "param.double()": lambda b: setattr(b.params[0], "data", b.params[0].data.double()),
    "param of another shape": lambda b: setattr(b.params[0], "data", b.params[0].data.reshape(6, 4)),
    "param resized": lambda b: b.params[0].resize_(2, 2),
    "param on another device": lambda b: b.params.__setitem__(0, torch.empty(4, 6, device="meta")),
    "state of another dtype": lambda b: b.states[0].__setitem__("exp_avg", b.states[0]["exp_avg"].double()),
    "state of another shape": lambda b: b.states[0]["exp_avg_sq"].resize_(3),
    "state gone": lambda b: b.states[0].pop("ema"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("has_grad", [True, False])
def test_what_changed_since_it_was_prepared_is_refused(change: str, has_grad: bool) -> None:
    param = torch.ones(4, 6)
    bucket = bucket_of(param)
    prepared = eager.prepare(bucket)
    eager.take(prepared, [torch.ones(4, 6)])
    CHANGES[change](bucket)
    with pytest.raises(MismatchError):
        eager.take(prepared, [torch.ones_like(param) if has_grad else None])


@pytest.mark.parametrize("stochastic", [None, False])
@pytest.mark.parametrize(("before", "after"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_a_model_that_changes_its_dtype_is_planned_anew(
    before: torch.dtype, after: torch.dtype, stochastic: bool | None
) -> None:
    """float32 weights went on being rounded to bfloat16, and bfloat16 ones no longer were rounded without bias."""
    torch.manual_seed(0)
    changed, twin = torch.nn.Linear(4, 4).to(before), torch.nn.Linear(4, 4).to(before)
    twin.load_state_dict(changed.state_dict())
    optimizers = []
    for model in (changed, twin):
        optimizer = AdamW(model.parameters(), lr=1e-3, kernel="eager", stochastic_rounding=stochastic)
        optimizers.append(optimizer)
        model(torch.ones(2, 4, dtype=before)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        model.to(after)
    reloaded = AdamW(twin.parameters(), lr=1e-3, kernel="eager", stochastic_rounding=stochastic)
    reloaded.load_state_dict(optimizers[1].state_dict())
    for model, optimizer in ((changed, optimizers[0]), (twin, reloaded)):
        model(torch.ones(2, 4, dtype=after)).sum().backward()
        optimizer.step()
    assert torch.equal(changed.weight, twin.weight)
    if after == torch.float32:
        assert not torch.equal(changed.weight.bfloat16().float(), changed.weight)


STORED = [PLAIN, Storage("packed16"), Storage("packed12"), Storage("bfloat16")]


@pytest.mark.parametrize("storage", STORED, ids=str)
def test_fake_tensors_are_stepped_without_a_read(storage: Storage) -> None:
    with FakeTensorMode():
        param = torch.empty(8, 1024)
        prepared = eager.prepare(bucket_of(param, storage))
        eager.take(prepared, [torch.empty(8, 1024)])
        norm = torch.stack(eager.squares(prepared)).sum().sqrt()
        scalars = StepScalars.of(HYPER, 1, grad_factor=(1.0 / norm).clamp(max=1.0), seed=7)
        eager.step(prepared, [scalars._replace(skip=~norm.isfinite())])
        assert param.shape == (8, 1024)


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("storage", STORED, ids=str)
def test_a_traced_step_is_the_step(storage: Storage, skips: bool) -> None:
    """make_fx fails where a tensor is read, and a graph that had read one would repeat its value."""

    def step(param: torch.Tensor, grad: torch.Tensor, state: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        param, state = param.clone(), {name: tensor.clone() for name, tensor in state.items()}
        prepared = eager.prepare(Bucket([param], [state], storage, averages=True))
        eager.take(prepared, [grad])
        norm = torch.stack(eager.squares(prepared)).sum().sqrt()
        scalars = StepScalars.of(HYPER, 1, grad_factor=(1.0 / norm).clamp(max=1.0) if skips else 1.0, seed=7)
        eager.step(prepared, [scalars._replace(skip=~norm.isfinite()) if skips else scalars])
        return [param, *state.values()]

    torch.manual_seed(0)
    param, grad = torch.randn(2, 80), torch.randn(2, 80)
    state = bucket_of(param, storage).states[0]
    traced = make_fx(step)(torch.ones(2, 80), torch.ones(2, 80), state)
    assert all(map(torch.equal, traced(param, grad, state), step(param, grad, state)))
