"""The table of options is what constructors, groups, checkpoints, pickles and the documented arguments follow."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import pytest
import torch

import adamas.torch
from adamas import options
from adamas.options import BASE_LR, GROUP_KEYS, OPTIMIZER_KEYS, OPTIONS, UNSAVED_KEYS
from adamas.torch import Adam, AdamW

BOTH = pytest.mark.parametrize("optimizer_class", [Adam, AdamW])


def param() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(3))


@BOTH
def test_constructors_have_the_tables_options_and_defaults(optimizer_class: Any) -> None:
    given = dict(inspect.signature(optimizer_class).parameters)
    del given["params"]
    mine = {name for name, option in OPTIONS.items() if option.only in (None, optimizer_class.__name__)}
    assert given.keys() == mine
    for name, parameter in given.items():
        default = 1e-2 if (name, optimizer_class) == ("weight_decay", AdamW) else OPTIONS[name].default
        assert parameter.default == default, name


@BOTH
def test_groups_and_documentation_have_every_option(optimizer_class: Any) -> None:
    optimizer = optimizer_class([param()])
    assert set(GROUP_KEYS) | {BASE_LR, "params"} == optimizer.param_groups[0].keys()
    assert set(GROUP_KEYS).isdisjoint(OPTIMIZER_KEYS)
    for name in inspect.signature(optimizer_class).parameters:
        assert f"\n    {name}: " in inspect.getdoc(optimizer_class), name
    assert "{arguments}" not in optimizer_class.__doc__
    assert max(map(len, optimizer_class.__doc__.splitlines())) <= 120


def test_docstrings_of_the_interface_have_no_markup_that_the_api_page_shows_raw() -> None:
    """mkdocs reads Markdown: directives and roles of reStructuredText, and formulas in LaTeX, stay as they are."""
    for name in adamas.torch.__all__:
        text = getattr(adamas.torch, name).__doc__
        assert not re.search(r"^\s*\.\. \w+::|:\w+:`|\$\$|\\(frac|theta|beta)", text, re.MULTILINE), name


OTHERS: dict[str, Any] = {
    "lr": 0.5, "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.3, "amsgrad": True, "maximize": True,
    "foreach": False, "capturable": True, "fused": False, "decoupled_weight_decay": True, "decay": "corrected",
    "cautious_decay": True, "state_dtype": "param", "master_weight_bits": 24, "stochastic_rounding": False,
    "ema_decay": 0.9, "seed": 5, "kernel": "eager",
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in GROUP_KEYS if name != "differentiable"])
def test_a_checkpoint_brings_what_the_table_says_and_no_more(name: str) -> None:
    """What decides how a step is done stays as constructed; what a schedule or a user tunes comes from the file."""
    option_of = {name: OTHERS[name]} | ({"decoupled_weight_decay": True} if name in ("decay", "cautious_decay") else {})
    source = Adam([{"params": [param()], **option_of}])
    target = Adam([{"params": [param()], "decoupled_weight_decay": name in ("decay", "cautious_decay")}])
    before = target.param_groups[0][name]
    target.load_state_dict(source.state_dict())
    assert target.param_groups[0][name] == (before if name in UNSAVED_KEYS else OTHERS[name])


@BOTH
def test_a_pickle_that_lacks_an_option_gets_its_default(optimizer_class: Any) -> None:
    optimizer = optimizer_class([param()])
    state = optimizer.__getstate__()
    for name in GROUP_KEYS[5:]:
        for each in (state["defaults"], *state["param_groups"]):
            each.pop(name, None)
    other = optimizer_class.__new__(optimizer_class)
    other.__setstate__(pickle.loads(pickle.dumps(state)))
    weight = other.param_groups[0]["params"][0]
    weight.grad = torch.ones(3)
    other.step()
    decoupled = optimizer_class is AdamW
    want = {**options.defaults(), "decoupled_weight_decay": decoupled, "weight_decay": 1e-2 if decoupled else 0.0}
    assert {name: other.param_groups[0][name] for name in GROUP_KEYS} == want


def test_bytes_of_state_are_told_by_reason() -> None:
    shapes = [(64, 128), (16, 16), (5000,), (40_000, 5), (65_536,)]
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = AdamW(params, state_dtype="packed16")
    for each in params:
        each.grad = torch.ones_like(each)
    with pytest.warns(UserWarning, match="'packed16' is applied to 2. % of the elements; the rest: "):
        optimizer.step()
    found = optimizer.state_bytes(by_reason=True)
    assert found == {
        "packed16": (2 * 64 * 128 + 3 * 4 * 64 + 4) + (2 * 65_536 + 3 * 4 * 256 + 4),  # a large flat one too
        "float32: fewer than 4,096 elements": 8 * 256 + 4,
        "float32: one dimension under 65,536 elements": 8 * 5000 + 4,
        "float32: rows under 8 elements": 8 * 200_000 + 4,
    }
    assert sum(found.values()) == optimizer.state_bytes()
