"""Which weight of a model belongs to which state of an optimizer: state dicts number parameters and seldom name them.

The numbers follow the order of `model.parameters()`, group by group. So names are certain where exactly one way to deal
out the model's weights fits the shapes. Safetensors files sort their weights by name; there only a shape that occurs
once is certain, unless the user gives the order of the names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

Shape = tuple[int, ...] | None  # None: the state does not tell
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def matched(
    groups: Sequence[Sequence[Shape]], weights: Mapping[str, tuple[int, ...]], ordered: bool
) -> list[list[str | None]]:
    """Return for each group the names of its parameters, None where a name is not certain.

    Args:
        groups: the shapes of the parameters of each group.
        weights: the shapes of the model's weights by name.
        ordered: whether the weights are in the order of `model.parameters()`.

    Example:
        >>> weights = {"a.weight": (3, 2), "a.bias": (3,), "b.weight": (3, 2), "b.bias": (3,)}
        >>> matched([[(3, 2), (3,), (3, 2), (3,)]], weights, ordered=True)
        [['a.weight', 'a.bias', 'b.weight', 'b.bias']]
        >>> matched([[(3, 2), (3, 2)], [(3,), (3,)]], weights, ordered=True)
        [['a.weight', 'b.weight'], ['a.bias', 'b.bias']]
        >>> matched([[(3, 2), (3,), (3, 2), (3,)]], weights, ordered=False)
        [[None, None, None, None]]
    """
    names = [name for name in weights if not name.endswith(BUFFERS)]
    fits = [deal for deal in _deals(names, weights, groups) if _fits(deal, weights, groups)] if ordered else []
    if fits:
        return [
            [
                options[0] if len(set(options)) == 1 else None
                for options in zip(*(fit[index] for fit in fits), strict=True)
            ]
            for index in range(len(groups))
        ]
    here = Counter(shape for shapes in groups for shape in shapes)
    there = Counter(weights[name] for name in names)
    alone = {weights[name]: name for name in names if there[weights[name]] == 1}
    return [[alone.get(shape) if shape and here[shape] == 1 else None for shape in shapes] for shapes in groups]


def _deals(
    names: list[str], weights: Mapping[str, tuple[int, ...]], groups: Sequence[Sequence[Shape]]
) -> list[list[list[str]]]:
    """Return the usual ways to deal out a model's weights to groups.

    One after the other; weights with at least two dimensions apart from the others; all but biases and norms apart.
    """
    ends = [sum(len(shapes) for shapes in groups[: index + 1]) for index in range(len(groups))]
    deals = [[names[end - len(shapes) : end] for end, shapes in zip(ends, groups, strict=True)]] if ends else []
    if len(groups) == 2:
        for decays in (
            {name for name in names if len(weights[name]) >= 2},
            {name for name in names if "bias" not in name and "norm" not in name.lower()},
        ):
            split = [[name for name in names if name in decays], [name for name in names if name not in decays]]
            deals += [split, split[::-1]]
    return [deal for deal in deals if sum(map(len, deal)) == len(names)]


def _fits(deal: list[list[str]], weights: Mapping[str, tuple[int, ...]], groups: Sequence[Sequence[Shape]]) -> bool:
    return all(
        len(names) == len(shapes)
        and all(shape is None or shape == weights[name] for name, shape in zip(names, shapes, strict=True))
        for names, shapes in zip(deal, groups, strict=True)
    )


def named(name: str, weights: Sequence[str]) -> str | None:
    """Return the weight with this name, or the only one that differs from it by a prefix, as wrappers add it.

    Example:
        >>> named("fc.weight", ["model.fc.weight", "model.fc.bias"])
        'model.fc.weight'
    """
    if name in weights:
        return name
    near = [each for each in weights if each.endswith(f".{name}") or name.endswith(f".{each}")]
    return near[0] if len(near) == 1 else None
