"""Keep torch.compile out of an optimizer without importing it, which takes two seconds and a hundred megabytes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from torch._compile import _disable_dynamo
from torch.optim import Optimizer

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def untraced(method: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Make torch.compile call a method instead of tracing it.

    As torch's own decorator, which imports the compiler at the first call whoever makes it. Until somebody else has
    imported it nobody can be tracing, and the method is called as it is.
    """
    kept_out = _disable_dynamo(method)

    @wraps(method)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return (kept_out if "torch._dynamo" in sys.modules else method)(*args, **kwargs)

    return call


class LightOptimizer(Optimizer):
    """torch's base class, of which neither making an optimizer nor clearing its gradients imports the compiler."""

    add_param_group = untraced(inspect.unwrap(Optimizer.add_param_group))
    zero_grad = untraced(inspect.unwrap(Optimizer.zero_grad))
