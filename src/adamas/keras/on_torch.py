"""Steps of Keras's variables on torch: the native kernel on a CPU, Triton on CUDA, and otherwise torch operations."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from adamas.kernels.bucket import Bucket, Traits, param_traits
from adamas.kernels.functional import Tensors, average
from adamas.scalars import Hyper, StepScalars

Parameters = ParamSpec("Parameters")
STATES = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


def mechanism() -> tuple[str, str]:
    """Return the kernel that steps float32 variables, and why."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    traits = Traits(device, torch.float32, torch.float32, plain=True, dense=True, host_scalars=True)
    kernel, reason = _choose(traits)
    return f"the kernel {kernel.NAME!r} for all variables", reason


def _choose(traits: Traits) -> tuple[Any, str]:
    """Return the kernel for a variable with these traits, and the reason."""
    fast = import_module("adamas.kernels.triton" if traits.device == "cuda" else "adamas.kernels.native")
    refusal = fast.refuses(traits)
    if refusal is None:
        return fast, f"{traits.dtype} on {traits.device}".removeprefix("torch.")
    return import_module("adamas.kernels.eager"), refusal


def _untraced(method: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Make torch.compile call a method instead of tracing it; the compiler is not imported for that."""
    kept_out = _disable_dynamo(method)

    @wraps(method)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        (kept_out if "torch._dynamo" in sys.modules else method)(*args, **kwargs)

    return call


class Steps:
    """Steps the variables of one optimizer."""

    def __init__(self) -> None:
        self._prepared: dict[tuple[Any, ...], tuple[list[Any], Any]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a copy is made: without tables of the original's tensors."""
        return Steps, ()

    def dense(self, grad: Any) -> Tensor:
        """Return a gradient as a dense tensor of float32 or float64."""
        grad = torch.as_tensor(grad)
        grad = grad.to_dense() if grad.is_sparse else grad
        return grad if grad.dtype in (torch.float32, torch.float64) else grad.float()

    def alone(self) -> bool:
        """Return False: all variables are always stepped together."""
        return False

    @_untraced
    def step(self, hypers: list[Hyper], variables: list[Tensors], grads: list[Any], lr: Any, iterations: Any) -> None:
        """Step variables and write them and their moments."""
        variables = [Tensors(*map(_tensor, x)) for x in variables]
        lr, step = float(lr), int(iterations) + 1
        kinds = list(dict.fromkeys(hypers))
        scalars = [StepScalars.of(hyper, step, lr=lr) for hyper in kinds]
        buckets: dict[Any, list[int]] = {}
        for i, (variable, grad) in enumerate(zip(variables, grads, strict=True)):
            kernel, _ = _choose(param_traits(variable.param, grad, host_scalars=True))
            buckets.setdefault(kernel, []).append(i)
        for kernel, members in buckets.items():
            prepared = self._prepare(kernel, [variables[i] for i in members])
            kernel.take(prepared, [grads[i].detach() for i in members])
            kernel.step(prepared, scalars, [kinds.index(hypers[i]) for i in members])

    def _prepare(self, kernel: Any, variables: list[Tensors]) -> Any:
        """Return the prepared bucket of these tensors, from the last step if it had the same tensors."""
        tensors = [x for variable in variables for x in variable]
        key = kernel.NAME, *map(id, tensors)
        if key not in self._prepared:
            states: list[dict[str, Any]] = [dict(zip(STATES, x[1:], strict=True)) for x in variables]
            bucket = Bucket([x.param for x in variables], states, amsgrad=variables[0].max_exp_avg_sq is not None)
            self._prepared[key] = tensors, kernel.prepare(bucket)
        return self._prepared[key][1]

    @_untraced
    def move_averages(self, hyper: Hyper, variables: list[Any], averages: list[Any], iterations: Any) -> None:
        """Move the averages of the weights; in the first iteration copy the weights."""
        first = int(iterations) == 0
        share = StepScalars.of(hyper, int(iterations) + 1, average_begins=first).average
        with torch.no_grad():
            for variable, ema in zip(variables, averages, strict=True):
                ema.value.copy_(average(torch, ema.value, variable.value.to(ema.value.dtype), share))

    def overwrite(self, variables: list[Any], averages: list[Any]) -> None:
        """Replace the weights by their averages."""
        for variable, ema in zip(variables, averages, strict=True):
            variable.assign(ema.value)


def _tensor(variable: Any) -> Any:
    """Return the tensor of a variable; None for None."""
    return None if variable is None else variable.value
