"""Shapes as a user gives them: written out, or those of a model that a function makes."""

from __future__ import annotations

import re

from torch import nn

from adamas import user_code
from adamas.bench.scenario import Shape

TERM = re.compile(r"(?:(\d+)x)?\(([\d, ]*)\)")


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Read shapes.

    Raises:
        ValueError: `text` is none, with what it should look like.

    Example:
        >>> parse_shapes("2x(20,20) (16)")
        ((20, 20), (20, 20), (16,))
    """
    shapes: list[Shape] = []
    rest = TERM.sub(" ", text).split()
    if rest or not TERM.search(text):
        raise ValueError(
            f"shapes={text!r}: {rest[0] if rest else 'nothing'!r} is no shape; write count x (sizes), separated by "
            "spaces, as in '24x(20,20) 24x(16)'"
        )
    for count, sizes in TERM.findall(text):
        shape = tuple(int(size) for size in sizes.replace(",", " ").split())
        shapes += [shape] * (int(count) if count else 1)
    return tuple(shapes)


def model_shapes(where: str) -> tuple[Shape, ...]:
    """Shapes of the trainable parameters of the model that a function makes.

    Args:
        where: "path/to/file.py:factory" or "package.module:factory"; called without arguments, it returns an
            nn.Module.

    Raises:
        ValueError: there is no such function, or what it returns is no model with trainable parameters.
    """
    factory = user_code.function(where, "model", "an nn.Module")
    name = where.rpartition(":")[2]
    try:
        model = factory()
    except Exception as error:
        raise ValueError(
            f"model={where!r}: {name}() raised {type(error).__name__}: {error}; it is called without arguments"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"model={where!r}: {name}() returned a {type(model).__name__}; it must return an nn.Module")
    shapes = tuple(tuple(param.shape) for param in model.parameters() if param.requires_grad)
    if not shapes:
        raise ValueError(f"model={where!r}: the model has no trainable parameter; there is nothing to step")
    return shapes
