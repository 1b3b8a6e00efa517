"""The noisy digits through a deep residual network without normalisation: gradients of many scales.

Twelve blocks add to a stream of width 64, and nothing keeps its size: gradients differ from block to block, and weights
with them in sqrt(v_hat), by which Adam divides L2. That is the regime in which decoupled decay should win. The twin has
a LayerNorm at the start of each block, which evens scales out, and should shrink the gap.

Two further variants multiply the training loss by 10 and by 100. Adam's steps do not change, nor do AdamW's with their
decay. L2's pull is divided by gradients ten times as large, so that its best weight decay should be ten times as large.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from adamas.compare.job import Job, Split
from adamas.compare.workloads.digits import BATCH, EPOCHS, TRAIN, data

BLOCKS, WIDTH = 12, 64


class Block(nn.Module):
    """Adds to the stream what a small network makes of it: (images, width) to the same."""

    def __init__(self, normalised: bool) -> None:
        super().__init__()
        before = [nn.LayerNorm(WIDTH)] if normalised else []
        self.added = nn.Sequential(*before, nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Add."""
        return x + self.added(x)


def make(seed: int, device: str, normalised: bool, loudness: float) -> Job:
    """The network on the digits' data; `seed` sets the weights, the data order and torch's stream."""
    torch.manual_seed(seed)
    blocks = [Block(normalised) for _ in range(BLOCKS)]
    model = nn.Sequential(nn.Linear(64, WIDTH), *blocks, nn.Linear(WIDTH, 10)).to(device)
    order = torch.Generator().manual_seed(seed)
    train = data().train

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(TRAIN, generator=order).split(BATCH):
            yield train.images[rows].to(device), train.labels[rows].to(device)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return loudness * functional.cross_entropy(model(images), labels)

    def evaluate(split: Split) -> dict[str, float]:
        part = data().validation if split == "validation" else data().test
        logits = model(part.images.to(device))
        return {
            "cross_entropy": functional.cross_entropy(logits, part.labels.to(device)).item(),
            "accuracy": (logits.argmax(1) == part.classes.to(device)).float().mean().item(),
        }

    return Job(model, batches, loss, evaluate, epochs=EPOCHS, steps_per_epoch=TRAIN // BATCH, stackable=True)


def job(seed: int, device: str) -> Job:
    """Without normalisation."""
    return make(seed, device, normalised=False, loudness=1.0)


def job_layernorm(seed: int, device: str) -> Job:
    """The twin with normalisation."""
    return make(seed, device, normalised=True, loudness=1.0)


def job_loss_x10(seed: int, device: str) -> Job:
    """Without normalisation, the training loss ten times as large."""
    return make(seed, device, normalised=False, loudness=10.0)


def job_loss_x100(seed: int, device: str) -> Job:
    """Without normalisation, the training loss a hundred times as large."""
    return make(seed, device, normalised=False, loudness=100.0)
