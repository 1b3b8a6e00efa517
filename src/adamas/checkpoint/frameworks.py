"""Which framework an optimizer belongs to, and the import of that framework when it is needed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

from adamas.checkpoint.contents import CheckpointError, Framework
from adamas.extras import needs


def needed(name: str) -> Any:
    """Import a framework and return its module.

    Raises:
        ModuleNotFoundError: it is not installed; the message names the extra that installs it.
    """
    with needs(name, extra=name):
        return importlib.import_module(name)


def framework_of(target: Any) -> Framework:
    """Return the framework of an optimizer, an optimizer's state, a model or a tree of weights.

    A framework that is not yet imported cannot have made the object, so that none is imported here.
    """
    if _first_leaf_is_numpy(target):
        return "numpy"
    modules = {base.__module__.split(".")[0] for base in type(target).__mro__}
    if "keras" in modules and "keras" in sys.modules:
        return "keras"  # first: a model of Keras on torch is a torch module too
    if "torch" in modules and "torch" in sys.modules:
        return "torch"
    if any(base.__module__.startswith("adamas.numpy") for base in type(target).__mro__):
        return "numpy"
    if "jax" in sys.modules:
        return "jax"
    raise CheckpointError(
        f"a {type(target).__name__} is no optimizer of torch, Keras, JAX or NumPy that this can read: give an Adam or "
        "AdamW of torch.optim, keras.optimizers or adamas, or the state that optax.adam made"
    )


def _first_leaf_is_numpy(tree: Any) -> bool:
    """Return whether the first leaf of nested dicts, lists and tuples is a NumPy array, or the tree is one itself.

    A named tuple is no such tree, because states of optax are made of them.
    """
    first = next(_leaves(tree), None)
    return type(first).__module__ == "numpy"


def _leaves(tree: Any) -> Iterator[Any]:
    """Iterate over the leaves of nested dicts, lists and plain tuples."""
    if isinstance(tree, dict | list) or type(tree) is tuple:
        nested: Any = tree
        for each in nested.values() if isinstance(nested, dict) else nested:
            yield from _leaves(each)
    else:
        yield tree


def class_of(optimizer: Any) -> str:
    """Return the public name of an optimizer's class, such as "torch.optim.AdamW"."""
    found = type(optimizer)
    place = {"torch.optim": "torch.optim", "keras": "keras.optimizers"}
    module = next((short for long, short in place.items() if found.__module__.startswith(long)), found.__module__)
    return f"{module}.{found.__qualname__}"
