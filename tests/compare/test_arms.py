from __future__ import annotations

from typing import Any

import pytest
import torch

import adamas.torch
from adamas.compare.study.arms import ARMS, DEFAULT, Arm, choose, find

TORCHS = {
    "torch.optim:Adam": "l2",
    "torch.optim:AdamW": "lr",
    "torch.optim:RMSprop": "l2",
    "torch.optim:Adagrad": "l2",
    "torch.optim:Adamax": "l2",
    "torch.optim:NAdam": "l2",
    "torch.optim:NAdam(decoupled_weight_decay=True)": "lr",
    "torch.optim:RAdam": "l2",  # after its first five steps, which divide by nothing
    "torch.optim:RAdam(decoupled_weight_decay=True)": "lr",
    "torch.optim:Adagrad(initial_accumulator_value=0.1)": "l2",
    "torch.optim:SGD": "lr",  # lr * weight_decay * weight, divided by nothing
    "torch.optim:SGD(momentum=0.9, nesterov=True)": "lr",
    "torch.optim:Rprop": "none",
}


class HandsOn(torch.optim.AdamW):
    """An optimizer that takes weight_decay without naming it."""

    def __init__(self, params: Any, lr: float = 1e-3, **rest: Any) -> None:
        super().__init__(params, lr=lr, **rest)


class Ignores(torch.optim.SGD):
    """An optimizer that takes weight_decay and ignores it."""

    def __init__(self, params: Any, lr: float = 1e-3, **rest: Any) -> None:
        super().__init__(params, lr=lr)


class Unnamed(torch.optim.SGD):
    """An optimizer that does not take weight_decay."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, lr=lr)


@pytest.mark.parametrize(("kind", "decay"), [("HandsOn", "lr"), ("Ignores", "none"), ("Unnamed", "none")])
def test_a_decay_that_is_handed_on_is_found(kind: str, decay: str) -> None:
    arm = find(f"{__name__}:{kind}")
    assert arm.decay == decay
    assert ("weight_decay" in arm.arguments(1e-3, 0.1)) == (decay != "none")


@pytest.mark.parametrize(("name", "decay"), TORCHS.items())
def test_how_an_optimizer_decays_is_measured(name: str, decay: str) -> None:
    arm = find(name)
    assert arm.decay == decay
    assert not arm.built_in
    assert arm.name == name


@pytest.mark.parametrize("name", TORCHS)
def test_any_optimizer_of_torch_is_built_with_its_options(name: str) -> None:
    arm = find(name)
    optimizer = arm.build([torch.nn.Parameter(torch.ones(2))], lr=0.25, weight_decay=0.5)
    group = optimizer.param_groups[0]
    assert type(optimizer) is getattr(torch.optim, name.split(":")[1].split("(")[0])
    assert group["lr"] == 0.25
    assert group.get("weight_decay", 0.0) == (0.0 if arm.decay == "none" else 0.5)
    for key, value in arm.options:
        assert group[key] == value


def test_arms_survive_json() -> None:
    for name in ("torch.optim:SGD(momentum=0.9, nesterov=True)", *ARMS):
        arm = find(name)
        assert Arm.from_json(arm.to_json()) == arm


def test_the_default_is_the_question() -> None:
    assert tuple(choose("none,adam_l2,adamw")) == DEFAULT
    chosen = choose(" adam_l2, adamw , torch.optim:AdamW(betas=(0.9, 0.99), amsgrad=True),none")
    assert list(chosen) == ["adam_l2", "adamw", "torch.optim:AdamW(betas=(0.9, 0.99), amsgrad=True)", "none"]
    assert dict(list(chosen.values())[2].options) == {"betas": (0.9, 0.99), "amsgrad": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adamw", "arms='adamw' must contain adam_l2 and adamw, which the verdict is about; add adam_l2"),
        ("none", "add adam_l2, adamw"),
        (
            "adam_l2,adamw,lion",
            "arm 'lion' must be one of none, adam_l2, adamw, adamw_independent, adamw_corrected,",
        ),
        ("adam_l2,adamw,torch.optim:Lion", "arm 'torch.optim:Lion' cannot be imported"),
        ("adam_l2,adamw,nowhere:SGD", "arm 'nowhere:SGD' cannot be imported: No module named 'nowhere'"),
        ("adam_l2,adamw,torch:nn", "must be a class derived from torch.optim.Optimizer"),
        ("adam_l2,adamw,torch.optim:SGD(0.9)", "the brackets must contain named arguments with plain values"),
        ("adam_l2,adamw,torch.optim:SGD(momentum=open('x'))", "the brackets must contain named arguments"),
        ("adam_l2,adamw,torch.optim:SGD(momentum=0.9", "the brackets must contain named arguments"),
        ("adam_l2,adamw,torch.optim:SGD(nesterov=True)", "cannot be built as SGD.*momentum"),
        ("adam_l2,adamw,torch.optim:LBFGS", "stepped without a closure: TypeError"),
    ],
)
def test_what_is_no_arm_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        choose(text)


def test_independent_decay_is_the_same_decay_told_otherwise() -> None:
    """Both conventions shrink a weight equally, at the base learning rate and under a schedule."""
    weights = {}
    for name in ("adamw", "adamw_independent"):
        weight = torch.nn.Parameter(torch.full((3,), 2.0, dtype=torch.float64))
        optimizer = ARMS[name].build([weight], lr=0.01, weight_decay=0.5)
        for factor in (1.0, 0.5, 0.1):
            optimizer.param_groups[0]["lr"] = 0.01 * factor
            weight.grad = torch.full_like(weight, 0.3)
            optimizer.step()
        weights[name] = weight.detach()
    torch.testing.assert_close(weights["adamw"], weights["adamw_independent"], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", [*ARMS, "torch.optim:SGD(momentum=0.9)", "torch.optim:Rprop"])
def test_the_code_to_paste_builds_the_same_optimizer(name: str) -> None:
    arm = find(name)
    model = torch.nn.Linear(2, 2)
    scope: dict[str, object] = {"model": model}
    exec(arm.code(0.01, 0.5).replace("; ", "\n"), scope)
    pasted, built = scope["optimizer"], arm.build(model.parameters(), 0.01, 0.5)
    assert type(pasted) is type(built)
    hyper = [
        {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}  # type: ignore[attr-defined]
        for optimizer in (pasted, built)
    ]
    assert hyper[0] == hyper[1]


def test_the_code_tells_the_other_convention() -> None:
    assert ARMS["adamw"].code(0.01, 0.5).endswith("weight_decay=0.5)  # lr * weight_decay: 0.005")
    assert (
        ARMS["adamw_independent"]
        .code(0.01, 0.5)
        .endswith("weight_decay=0.005, decay='independent')  # torch's weight_decay: 0.5")
    )
    assert ARMS["none"].code(0.01, 0.0).endswith("Adam(model.parameters(), lr=0.01)")


def test_built_in_arms_are_ours() -> None:
    assert all(arm.built_in and arm.optimizer.startswith("adamas.torch:") for arm in ARMS.values())
    assert issubclass(adamas.torch.AdamW, torch.optim.Optimizer)
