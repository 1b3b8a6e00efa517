"""Read the parameter groups of a job, in all the forms that users and torch optimizers have for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, cast

from torch import Tensor

Groups = Iterable[Any]  # parameter groups as a torch optimizer takes them, or several optimizers' by name
PlainGroups = list[dict[str, Any]] | dict[str, list[dict[str, Any]]]


def plain_groups(where: str, given: Any) -> PlainGroups:
    """Return parameter groups with their weights in lists, which can be read more than once, without names.

    A weight decay above 0 is dropped, because the study chooses it; all groups must agree in it. A weight decay of 0
    stays. Groups of several optimizers, given by the name of the optimizer, are returned by name.

    Args:
        where: The attribute that holds the groups, for errors.
        given: The groups, or a mapping from the name of an optimizer to its groups.

    Raises:
        TypeError: something in the groups is no dictionary or no parameter.
        ValueError: the groups are empty, or leave no learning rate or no weight decay to tune.
    """
    if not isinstance(given, Mapping):
        groups = _plain(where, given)
        _check_what_is_left(where, groups)
        return groups
    if "params" in given:
        raise TypeError(f"{where} is one group; write [{{'params': ...}}], a list of groups, as torch optimizers take")
    if not given:
        raise ValueError(f"{where} is empty; leave it out to train every weight of the model")
    named: dict[str, list[dict[str, Any]]] = {}
    for name, groups in given.items():
        one_group = isinstance(groups, Mapping) and "params" in groups
        named[str(name)] = _plain(f"{where}[{name!r}]", [dict(groups)] if one_group else groups)
    _check_what_is_left(where, [group for groups in named.values() for group in groups])
    return named


def _plain(where: str, given: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the groups of one optimizer with plain lists of weights."""
    entries: list[Any] = list(given)
    if not entries:
        raise ValueError(f"{where} is empty; leave it out to train every weight of the model")
    if not isinstance(entries[0], dict):
        entries = [{"params": entries}]
    groups: list[dict[str, Any]] = []
    group: Any
    for number, group in enumerate(entries):
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(
                f"{where}[{number}] is {group!r:.60}; it must be a dictionary with 'params', as torch's are"
            )
        params = _weights_of(cast(Any, group["params"]))
        if strange := [param for param in params if not isinstance(param, Tensor)]:
            kind = type(strange[0]).__name__
            raise TypeError(f"{where}[{number}] holds a {kind}; it must hold parameters of the model")
        for key, least, why in (
            ("weight_decay", 0.0, ">= 0"),
            ("lr_scale", math.ulp(0.0), "above 0: the learning rate is multiplied by it"),
        ):
            value: Any = group.get(key)
            if value is not None and not (isinstance(value, Real) and least <= float(value) < math.inf):
                raise ValueError(f"{where}[{number}] sets {key}={value!r}, which must be a finite number {why}")
        if "lr" in group and "lr_scale" in group:
            raise ValueError(
                f"{where}[{number}] sets lr and lr_scale; give lr for a rate that stays as it is, or lr_scale for a "
                "multiple of the rate that the comparison tunes"
            )
        groups.append({**group, "params": params})
    return groups


def _weights_of(params: Any) -> list[Any]:
    """Return the weights of a group, which may hold one weight, several, or pairs of name and weight."""
    if isinstance(params, Tensor):
        return [params]
    return [cast(Any, param)[1] if isinstance(param, tuple) else param for param in params]


def _check_what_is_left(where: str, groups: list[dict[str, Any]]) -> None:
    """Drop the weight decays that the study chooses, and check that something is left to tune.

    Two different weight decays are refused. The study tunes one number, and everything that it reports is about this
    number. A fixed ratio would not even mean the same to the arms: L2 is divided by the size of each gradient.
    """
    decays = sorted({float(group["weight_decay"]) for group in groups if group.get("weight_decay")})
    if len(decays) > 1:
        raise ValueError(
            f"{where} sets the weight decays {', '.join(f'{decay:g}' for decay in decays)} in different groups, and "
            "the comparison tunes one; give the same number to all groups that decay (the comparison replaces it), and "
            "0 to the others"
        )
    for group in groups:
        if group.get("weight_decay", 0) != 0:
            del group["weight_decay"]
    if all("weight_decay" in group for group in groups):
        raise ValueError(
            f"{where}: every group sets its weight_decay to 0, so nothing would decay; leave it out of one at least"
        )
    if all("lr" in group for group in groups):
        raise ValueError(
            f"{where}: every group sets its lr, so no learning rate would be left to tune; leave it out of one at "
            "least, or give lr_scale, a multiple of the rate that the comparison tunes"
        )
