"""Whose memory is read and written, and how long it is held: lazy views, moved and resized tensors, references."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from adamas.torch import Adam, AdamW
from tests.conftest import KERNELS

on_kernels = pytest.mark.parametrize("kernel", KERNELS)


def stepped(optimizer_class: Any, **options: Any) -> tuple[torch.nn.Parameter, Any]:
    param = torch.nn.Parameter(torch.arange(6.0).view(2, 3) + 1)
    optimizer = optimizer_class([param], lr=0.1, **options)
    param.grad = torch.ones(2, 3)
    optimizer.step()
    return param, optimizer


@on_kernels
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (5,)])
def test_lazily_negated_gradients(kernel: str, shape: tuple[int, ...]) -> None:
    """The imaginary part of a conjugate is a view with a negative bit: its memory holds the opposite sign."""
    results = []
    for optimizer_class, options in ((Adam, {"kernel": kernel}), (torch.optim.Adam, {})):
        param = torch.nn.Parameter(torch.zeros(shape))
        optimizer = optimizer_class([param], lr=0.1, **options)
        for _ in range(5):
            optimizer.zero_grad()
            (torch.complex(torch.ones(shape), param).conj() * (1 + 2j)).real.sum().backward()
            optimizer.step()
        param.grad = torch._neg_view(torch.full(shape, 3.0))
        optimizer.step()
        results.append(param.detach())
    torch.testing.assert_close(results[0], results[1])


def test_lazily_negated_parameters_go_to_eager() -> None:
    param = torch._neg_view(torch.ones(2)).requires_grad_()
    optimizer = AdamW([param], lr=0.1, weight_decay=0.0)
    param.grad = torch.ones(2)
    optimizer.step()
    torch.testing.assert_close(param.detach(), torch.full((2,), -1.1))


@on_kernels
def test_gradients_without_memory_are_zeros(kernel: str) -> None:
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = Adam([param], kernel=kernel)
    param.grad = torch._efficientzerotensor((3,))
    optimizer.step()
    assert torch.equal(param.detach(), torch.ones(3))


class Wrapped(torch.Tensor):
    """A gradient that is not a plain tensor: as DTensor's, it must be met through torch's dispatch."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Wrapped:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def plain(x: Any) -> Any:
            return x.inner if isinstance(x, Wrapped) else x

        return func(*map(plain, args), **{key: plain(value) for key, value in (kwargs or {}).items()})


def test_a_gradient_subclass_that_arrives_later_goes_to_eager() -> None:
    param, optimizer = stepped(AdamW)
    mirror, plain = stepped(AdamW, kernel="eager")
    param.grad, mirror.grad = Wrapped(torch.full((2, 3), -2.0)), torch.full((2, 3), -2.0)
    optimizer.step()
    plain.step()
    torch.testing.assert_close(param.detach(), mirror.detach())


CHANGES: dict[str, Callable[[torch.nn.Parameter], None]] = {
    "new memory": lambda param: setattr(param, "data", param.data.clone()),
    "column major": lambda param: setattr(param, "data", param.data.t().contiguous().t()),
    "float64": lambda param: setattr(param, "data", param.data.double()),
}


@on_kernels
@pytest.mark.parametrize("change", CHANGES)
def test_parameters_may_be_given_other_data(kernel: str, change: str) -> None:
    """Between two steps; the moments follow, in the new layout and precision."""
    param, optimizer = stepped(AdamW, kernel=kernel)
    mirror, plain = stepped(torch.optim.AdamW)
    for each in (param, mirror):
        each.grad = None
        CHANGES[change](each)
        each.grad = torch.linspace(-1, 1, 6).view(2, 3).to(each.dtype)
    if change == "float64":
        plain.state[mirror].update({key: value.double() for key, value in plain.state[mirror].items() if key != "step"})
    optimizer.step()
    plain.step()
    torch.testing.assert_close(param.detach(), mirror.detach(), rtol=1e-6, atol=1e-6)
    if change == "float64":
        assert not torch.equal(param.detach(), param.detach().float().double())


@on_kernels
def test_a_square_parameter_transposed_in_place_is_read_anew(kernel: str) -> None:
    """Same address, same shape, other strides."""
    results = []
    for optimizer_class, options in ((Adam, {"kernel": kernel}), (torch.optim.Adam, {})):
        param = torch.nn.Parameter(torch.arange(9.0).view(3, 3))
        optimizer = optimizer_class([param], lr=0.1, **options)
        for step in range(4):
            param.grad = torch.sin(torch.arange(9.0) * (step + 1)).view(3, 3)
            optimizer.step()
            param.grad = None
            param.data = param.data.t()
        results.append(param.detach())
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@on_kernels
def test_a_resized_parameter_is_refused(kernel: str) -> None:
    param, optimizer = stepped(Adam, kernel=kernel)
    param.grad = None
    param.data = param.data.view(3, 2)
    param.grad = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"exp_avg of parameter 0 of group 0 has shape \(2, 3\)"):
        optimizer.step()


@on_kernels
def test_an_optimizer_its_parameter_knows_is_collected(kernel: str) -> None:
    param, optimizer = stepped(Adam, kernel=kernel)
    param.optimizer = optimizer
    alive = weakref.ref(optimizer)
    del param, optimizer
    gc.collect()
    assert alive() is None


@on_kernels
def test_moments_that_were_replaced_are_freed_at_once(kernel: str) -> None:
    """Offloading state between steps must give its memory back."""
    param, optimizer = stepped(Adam, kernel=kernel)
    alive = weakref.ref(optimizer.state[param]["exp_avg"])
    optimizer.state[param]["exp_avg"] = optimizer.state[param]["exp_avg"].clone()
    gc.collect()
    assert alive() is None
    optimizer.step()


@on_kernels
def test_gradients_are_not_held_after_a_step_nor_after_a_refused_one(kernel: str) -> None:
    param, optimizer = stepped(Adam, kernel=kernel)
    for lr in (0.1, -1.0):
        optimizer.param_groups[0]["lr"] = lr
        param.grad = torch.ones(2, 3)
        alive = weakref.ref(param.grad)
        if lr < 0:
            with pytest.raises(ValueError, match="Invalid learning rate"):
                optimizer.step()
        else:
            optimizer.step()
        param.grad = None
        gc.collect()
        assert alive() is None


@on_kernels
def test_state_dicts_stay_the_same_objects(kernel: str) -> None:
    """A write through a reference to `opt.state[p]` takes effect, also after the plan of the step changed."""
    results = []
    for optimizer_class, options in ((Adam, {"kernel": kernel}), (torch.optim.Adam, {})):
        a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
        optimizer = optimizer_class([a, b], lr=0.1, **options)
        a.grad, b.grad = torch.ones(2), torch.ones(2)
        optimizer.step()
        held = optimizer.state[a]
        b.grad = None
        optimizer.step()
        held["exp_avg"] = torch.full((2,), -5.0)
        optimizer.step()
        results.append(a.detach())
    torch.testing.assert_close(results[0], results[1])


@on_kernels
def test_a_refused_first_step_leaves_no_state(kernel: str) -> None:
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = AdamW([a, b], kernel=kernel)
    a.grad, b.grad = torch.ones(2), torch.ones(2)
    b.data = torch.ones(3)
    with pytest.raises(ValueError, match="1"):
        optimizer.step()
    assert not any(optimizer.state.values())


def test_counters_stay_on_the_host_whatever_the_default_device() -> None:
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = AdamW([param])
    param.grad = torch.ones(2)
    with torch.device("meta"):
        optimizer.step()
    assert optimizer.state[param]["step"].item() == 1


def test_capturable_counters_are_kept_not_copied() -> None:
    """A graph that captures the step writes to the tensor that the state shows."""
    param, source = stepped(Adam, capturable=True)
    loaded = Adam([param], capturable=True)
    loaded.load_state_dict(source.state_dict())
    shown = loaded.state[param]["step"]
    loaded.step()
    assert shown is loaded.state[param]["step"]
    assert shown.item() == 2


class HostReads(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts reads of a tensor's value by the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_capturable_step_reads_nothing_on_the_host() -> None:
    """Each read would wait for the device, and inside a CUDA graph it is an error."""
    lr, beta = torch.tensor(0.1), torch.tensor(0.9)
    param, optimizer = torch.nn.Parameter(torch.ones(3)), None
    optimizer = AdamW([param], lr=lr, betas=(beta, torch.tensor(0.99)), capturable=True)
    param.grad = torch.ones(3)
    optimizer.step()
    with HostReads() as reads:
        optimizer.step()
    assert reads.count == 0


def test_capturable_with_lr_zero_moves_nothing() -> None:
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = AdamW([param], lr=torch.tensor(0.0), capturable=True, weight_decay=0.1)
    param.grad = torch.tensor([1.0, float("inf"), float("nan")])
    optimizer.step()
    assert torch.equal(param.detach(), torch.ones(3))


def test_betas_in_a_list_are_frozen_as_in_torch() -> None:
    optimizer = Adam([{"params": [torch.nn.Parameter(torch.ones(2))], "betas": [0.5, 0.9]}])
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.9)


def test_a_pickled_optimizer_still_wants_its_weight_decay_given() -> None:
    optimizer = AdamW([{"params": [torch.nn.Parameter(torch.ones(2))], "weight_decay": 1e-3}], decay="independent")
    copied = pickle.loads(pickle.dumps(optimizer))
    with pytest.raises(ValueError, match="needs weight_decay given"):
        copied.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})


def test_inference_mode() -> None:
    param, optimizer = stepped(AdamW)
    mirror, plain = stepped(AdamW)
    with torch.inference_mode():
        optimizer.step()
    plain.step()
    assert torch.equal(param.detach(), mirror.detach())


def test_two_optimizers_in_two_threads() -> None:
    import threading

    def train(results: list[torch.Tensor]) -> None:
        param = torch.nn.Parameter(torch.linspace(-1, 1, 200_000))
        optimizer = AdamW([param], lr=0.01)
        for step in range(20):
            param.grad = torch.cos(param.detach() * step)
            optimizer.step()
        results.append(param.detach())

    results: list[torch.Tensor] = []
    threads = [threading.Thread(target=train, args=(results,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    train(results)
    assert all(torch.equal(result, results[-1]) for result in results)
