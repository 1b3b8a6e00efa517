"""What Transformers' optimization and Trainer tests ask of an AdamW: its schedules, its groups, its accumulation."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adamas.torch import AdamW, WeightDecaySchedule

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # of their own lazy imports and deprecations

# float32 weights of size 1 after a dozen steps of 1e-2: both round each step to 2^-24, in another order.
CLOSE: dict[str, float] = {"rtol": 1e-5, "atol": 1e-6}
WARM, ALL = 4, 20


def rates_of(name: str, **options: Any) -> list[float]:
    """The rates that a schedule of theirs writes into our groups, the optimizer stepping in between."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = AdamW([weight], lr=10.0)
    scheduler = getattr(transformers, f"get_{name}")(optimizer, **options)
    rates = []
    for _ in range(ALL):
        rates.append(optimizer.param_groups[0]["lr"])
        weight.grad = torch.zeros(3)
        optimizer.step()
        scheduler.step()
    return rates


def cosine(step: int, cycles: float = 0.5) -> float:
    return max(0.0, 0.5 * (1 + math.cos(2 * math.pi * cycles * (step - WARM) / (ALL - WARM))))


STEPS = {"num_warmup_steps": WARM, "num_training_steps": ALL}
CLOSED_FORMS: dict[str, tuple[dict[str, Any], Any]] = {
    "constant_schedule": ({}, lambda t: 1.0),
    "constant_schedule_with_warmup": ({"num_warmup_steps": WARM}, lambda t: min(1.0, t / WARM)),
    "linear_schedule_with_warmup": (STEPS, lambda t: t / WARM if t < WARM else (ALL - t) / (ALL - WARM)),
    "cosine_schedule_with_warmup": (STEPS, lambda t: t / WARM if t < WARM else cosine(t)),
    "polynomial_decay_schedule_with_warmup": (
        {**STEPS, "power": 2.0, "lr_end": 1.0},
        lambda t: t / WARM if t < WARM else 0.1 + 0.9 * ((ALL - t) / (ALL - WARM)) ** 2,
    ),
    "inverse_sqrt_schedule": (
        {"num_warmup_steps": WARM},
        lambda t: t / WARM if t < WARM else 1 / math.sqrt((t + WARM - WARM) / WARM),
    ),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_schedules_write_their_closed_forms(name: str) -> None:
    options, closed_form = CLOSED_FORMS[name]
    assert rates_of(name, **options) == pytest.approx([10.0 * closed_form(t) for t in range(ALL)], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", ["cosine_schedule_with_warmup", "linear_schedule_with_warmup"])
def test_a_schedule_leads_where_it_leads_with_torchs(name: str) -> None:
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        weight = nn.Parameter(torch.tensor([0.1, -0.2, -0.1]))
        optimizer = optimizer_class([weight], lr=0.2, weight_decay=0.1)
        scheduler = getattr(transformers, f"get_{name}")(optimizer, **STEPS)
        for _ in range(ALL):
            nn.functional.mse_loss(weight, torch.tensor([0.4, 0.2, -0.5])).backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        results.append(weight.detach())
    torch.testing.assert_close(*results, **CLOSE)


def test_a_hundred_steps_reach_the_target() -> None:
    """Their regression test: mean squared error, no warm-up, gradients cleared by hand."""
    weight = torch.tensor([0.1, -0.2, -0.1], requires_grad=True)
    target = torch.tensor([0.4, 0.2, -0.5])
    optimizer = AdamW(params=[weight], lr=0.2, weight_decay=0.0)
    for _ in range(100):
        nn.functional.mse_loss(weight, target).backward()
        optimizer.step()
        assert weight.grad is not None
        weight.grad.detach_().zero_()
    assert (weight - target).abs().max() < 1e-2


def test_a_saved_schedule_goes_on() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = AdamW([weight], lr=10.0)
    scheduler = transformers.get_cosine_schedule_with_warmup(optimizer, **STEPS)
    rates = []
    for step in range(ALL):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
        if step == ALL // 2:
            scheduler.load_state_dict(copy.deepcopy(scheduler.state_dict()))
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert rates == pytest.approx(rates_of("cosine_schedule_with_warmup", **STEPS))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(torch.tanh(self.attention(x)))


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(11, 8), Block(), Block(), nn.Linear(8, 3))


def trainer_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The two groups that their Trainer makes."""
    from transformers.trainer_pt_utils import get_parameter_names

    decay = set(get_parameter_names(model, [nn.LayerNorm], ["bias", "layernorm"]))
    named = list(model.named_parameters())
    return [
        {"params": [param for name, param in named if name in decay], "weight_decay": weight_decay},
        {"params": [param for name, param in named if name not in decay], "weight_decay": 0.0},
    ]


def batch(step: int, rows: int = 8) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(step)
    return torch.randint(11, (rows,), generator=random), torch.randint(3, (rows,), generator=random)


def test_the_trainers_groups_decay_matrices_and_nothing_else() -> None:
    """Without gradients a step shows what decays: norms and biases stay, to the bit."""
    model = small_model()
    optimizer = AdamW(trainer_groups(model, 0.5), lr=0.1)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()
    for name, param in model.named_parameters():
        if "norm" in name or "bias" in name:
            assert torch.equal(param, before[name]), name
        else:
            torch.testing.assert_close(param.detach(), 0.95 * before[name], rtol=2**-23, atol=0.0)


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_accumulated_batches_train_as_with_torchs(accumulate: int, clip: float | None) -> None:
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        model = small_model()
        optimizer = optimizer_class(trainer_groups(model, 0.1), lr=1e-2)
        scheduler = transformers.get_linear_schedule_with_warmup(optimizer, 2, 8)
        for step in range(8 * accumulate):
            tokens, labels = batch(step)
            (nn.functional.cross_entropy(model(tokens), labels) / accumulate).backward()
            if (step + 1) % accumulate:
                continue
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        assert {float(state["step"]) for state in optimizer.state.values()} == {8.0}
        results.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    torch.testing.assert_close(*results, rtol=1e-4, atol=2e-6)


def test_accumulated_batches_are_one_large_batch() -> None:
    """The mean of four means of equal size is the mean of all: float32 sums in another order."""
    results = []
    for accumulate in (1, 4):
        model = small_model()
        optimizer = AdamW(trainer_groups(model, 0.1), lr=1e-2, max_norm=0.5)
        for step in range(6):
            tokens, labels = batch(step, rows=32)
            for rows in range(accumulate):
                part = slice(rows * 32 // accumulate, (rows + 1) * 32 // accumulate)
                (nn.functional.cross_entropy(model(tokens[part]), labels[part]) / accumulate).backward()
            optimizer.step(zero_grad=True)
        results.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    # a gradient near zero may have its sign from rounding, and an early step of Adam moves by lr either way
    difference = (results[0] - results[1]).abs()
    assert difference.median() < 1e-6
    assert (difference > 1e-3).float().mean() < 0.02


def test_weight_decay_is_scheduled_beside_theirs() -> None:
    """Under their warm-up from rate zero lr * weight_decay is that of the base rate from the first step above it on."""
    model = small_model()
    optimizer = AdamW(trainer_groups(model, 0.1), lr=1e-2)
    scheduler = transformers.get_cosine_schedule_with_warmup(optimizer, **STEPS)
    schedule = WeightDecaySchedule(optimizer, "inverse_lr")
    for _ in range(1, ALL):
        optimizer.step()
        scheduler.step()
        schedule.step()
        decaying, resting = optimizer.param_groups
        assert decaying["lr"] * decaying["weight_decay"] == pytest.approx(1e-3, rel=1e-12)
        assert resting["weight_decay"] == 0.0
