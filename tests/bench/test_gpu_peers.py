"""Adapters of implementations that refuse on a CPU: what they ask for, by stand-ins for the packages."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from adamas.bench import rule
from adamas.bench.peers import PEERS
from tests.bench.conftest import tiny


class Recorded(torch.optim.AdamW):
    """Takes what flashoptim and apex take, and remembers it."""

    asked: dict[str, Any]

    def __init__(
        self, params: Any, *, master_weight_bits: int | None = None, adam_w_mode: bool = False, **options: Any
    ):
        Recorded.asked = {"master_weight_bits": master_weight_bits, "adam_w_mode": adam_w_mode, **options}
        super().__init__(params, **options)


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(("dtype", "bits"), [("float32", None), ("bfloat16", 24)])
def test_flashoptim_gets_masters_where_it_takes_them(
    dtype: str, bits: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, "flashoptim", FlashAdamW=Recorded)
    PEERS["flashoptim"](tiny(dtype), rule.initial(tiny(dtype))[0])
    assert Recorded.asked["master_weight_bits"] == bits
    assert Recorded.asked["weight_decay"] == rule.WEIGHT_DECAY


def test_flashoptims_quantized_moments_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "flashoptim", FlashAdamW=Recorded)
    scenario = tiny("bfloat16")
    side: Any = PEERS["flashoptim"](scenario, rule.initial(scenario)[0])
    quantized = SimpleNamespace(
        _data=None, _quantized=torch.zeros(64, dtype=torch.int8), _scales=torch.zeros(2, dtype=torch.float16)
    )
    low_bits, step = torch.zeros(64, dtype=torch.int8), torch.tensor(0)
    side.optimizer.state[side.params[0]] = {"exp_avg": quantized, "error_bits": low_bits, "step": step}
    assert side.state_bytes() == 64 + 4 + 64 + 8


def test_apex_decays_apart_from_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "apex")
    stand_in(monkeypatch, "apex.optimizers", FusedAdam=Recorded)
    PEERS["apex-fused"](tiny(), rule.initial(tiny())[0])
    assert Recorded.asked["adam_w_mode"] is True
    assert Recorded.asked["lr"] == rule.LR
