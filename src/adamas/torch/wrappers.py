"""Recognize the objects that trainers put around an optimizer, and carry over what is set on them.

Lightning and Fabric derive a class from the optimizer's: its properties and methods work on their objects, but state
must go to the optimizer inside. Accelerate's object passes nothing on but torch's own methods.
"""

from __future__ import annotations

import gc
import sys
from typing import Any
from weakref import WeakSet

from adamas.options import OPTIMIZER_KEYS


def unwrapped(optimizer: Any) -> Any:
    """The optimizer inside of a trainer's wrappers, each of which has it as `optimizer`."""
    while "_conductor" not in getattr(optimizer, "__dict__", ()) and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def is_accelerated(optimizer: Any) -> bool:
    """Whether an object is what `accelerator.prepare` returns for an optimizer."""
    module = sys.modules.get("accelerate.optimizer")
    return module is not None and issubclass(type(optimizer), module.AcceleratedOptimizer)


def accelerated(optimizer: Any) -> WeakSet[Any] | None:
    """The objects of Accelerate around an optimizer, a search of a tenth of a second; None before an Accelerator is."""
    if not sys.modules["accelerate.state"].is_initialized():
        return None
    return WeakSet(
        each for each in gc.get_objects() if is_accelerated(each) and vars(each).get("optimizer") is optimizer
    )


def carry_over(optimizer: Any, wrappers: WeakSet[Any] | None) -> None:
    """Move `max_norm` and `skip_nonfinite`, set on Accelerate's object, to the optimizer."""
    for wrapper in wrappers or ():
        for name in OPTIMIZER_KEYS:
            if name in vars(wrapper):
                setattr(optimizer, name, vars(wrapper).pop(name))
