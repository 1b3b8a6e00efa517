"""Keep torch.compile from tracing an optimizer, without importing the compiler (two seconds, a hundred megabytes)."""

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

    torch's own decorator imports the compiler at the first call. This one waits until the program has imported it:
    before that, no program can be traced.
    """
    kept_out = _disable_dynamo(method)

    @wraps(method)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return (kept_out if "torch._dynamo" in sys.modules else method)(*args, **kwargs)

    return call


class LightOptimizer(Optimizer):
    """torch's base class, without the import of the compiler at construction and at `zero_grad`."""

    add_param_group = untraced(inspect.unwrap(Optimizer.add_param_group))
    zero_grad = untraced(inspect.unwrap(Optimizer.zero_grad))
