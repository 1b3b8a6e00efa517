"""Trainers that clip, scale and step by themselves: accelerate and Lightning, with our clipping and with theirs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adamas.torch import AdamW

# What the trainers warn of (their own deprecations, missing loggers, few workers) is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 6
# optimizer class, its own max_norm, the trainer's clipping
WAYS: dict[str, tuple[Any, dict[str, Any], float | None]] = {
    "torch, clipped by the trainer": (torch.optim.AdamW, {}, 0.05),
    "ours, clipping": (AdamW, {"max_norm": 0.05}, None),
    "ours, clipped by the trainer": (AdamW, {}, 0.05),
    "nobody clips": (torch.optim.AdamW, {}, None),
    "both clip": (AdamW, {"max_norm": 0.05, "skip_nonfinite": True, "ema_decay": 0.9}, 0.05),
}


def data() -> torch.utils.data.DataLoader[Any]:
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(STEPS * 8, 5, generator=random)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows), batch_size=8)


def fresh() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))


def by_accelerate(way: str) -> tuple[torch.nn.Module, Any]:
    from accelerate import Accelerator

    optimizer_class, options, clip = WAYS[way]
    accelerator = Accelerator(cpu=True)
    module = fresh()
    inner = optimizer_class(module.parameters(), lr=0.01, **options)
    model, optimizer, loader = accelerator.prepare(module, inner, data())
    for (rows,) in loader:
        accelerator.backward(model(rows).square().mean())
        if clip is not None:
            accelerator.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        assert not optimizer.step_was_skipped
        optimizer.zero_grad()
    return module, inner


def by_lightning(way: str) -> tuple[torch.nn.Module, Any]:
    import lightning

    optimizer_class, options, clip = WAYS[way]

    class Job(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = fresh()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return self.model(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            self.inner = optimizer_class(self.parameters(), lr=0.01, **options)
            return self.inner

    job = Job()
    lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        gradient_clip_val=clip,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(job, data())
    return job.model, job.inner


@pytest.mark.slow
@pytest.mark.parametrize("train", [by_accelerate, by_lightning])
def test_whoever_clips_the_weights_are_the_same(train: Any) -> None:
    """Clipping what is clipped already multiplies by at least 1 - 1e-6/norm, so the ways agree to that."""
    weights = {}
    for way in WAYS:
        model, optimizer = train(way)
        weights[way] = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        assert all(int(state["step"]) == STEPS for state in optimizer.state.values())
        if way == "both clip":
            assert optimizer.skipped_steps == 0
            assert 0.049 < optimizer.grad_norm < 0.0500001
    start = torch.nn.utils.parameters_to_vector(fresh().parameters()).detach()
    for way, got in weights.items():
        assert (got - start).abs().max() > 0.01, way
        if way == "nobody clips":  # or nothing would have been tested
            assert (got - weights["torch, clipped by the trainer"]).abs().max() > 1e-3
            continue
        torch.testing.assert_close(got, weights["torch, clipped by the trainer"], rtol=1e-4, atol=2e-6, msg=way)


@pytest.mark.parametrize("options", [{}, {"max_norm": 1.0, "skip_nonfinite": True}], ids=str)
def test_lightning_lets_us_be_clipped_under_mixed_precision(options: dict[str, Any]) -> None:
    """It refuses to clip for an optimizer that unscales inside: ours does so only where fused=True asks for it."""
    from lightning.pytorch.plugins import MixedPrecision

    model = fresh()
    optimizer = AdamW(model.parameters(), **options)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    model(torch.ones(2, 5)).sum().backward()
    plugin.clip_gradients(optimizer, 1e-3)
    assert torch.nn.utils.get_total_norm([param.grad for param in model.parameters()]) < 1.001e-3
