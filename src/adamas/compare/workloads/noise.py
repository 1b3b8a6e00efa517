"""Gradients of pure noise: how large do weights become under each kind of decay? Theory says it exactly.

Three groups of weights see independent normal noise of standard deviation 0.1, 1 and 10, and nothing else. Adam makes
steps of one size of all three, a random walk; decay pulls back, and the two balance at a size that can be computed:
sqrt(lr / (2 weight_decay)) under AdamW, whatever the scale of the gradient, and sqrt(lr scale / (2 weight_decay)) under
Adam with L2, whose pull is divided by the scale. So one weight decay is one strength of regularisation under AdamW, and
a different strength for every weight under L2.

Nothing is tuned. The settings give both arms one size at scale 1: weights of 0.039, small enough beside the gradients
of every scale that the decay's own part of the second moment (1.5 % at scale 0.1) can be left out of the prediction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from adamas.compare.job.job import Job, Split, constant

SCALES = (0.1, 1.0, 10.0)  # standard deviation of the gradient
WEIGHTS = 8192  # of each scale: an RMS over them is known to 0.8 %
LR, WEIGHT_DECAY = 3e-3, 1.0
EPOCHS, STEPS = 8, 1000  # the variance forgets its start over scale / (2 lr weight_decay), 1,700 steps at scale 10


class Walkers(nn.Module):
    """The product of weights and noise, whose gradient is the noise: (scales, weights) to a number."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.groups = nn.ParameterList([row.clone() for row in start])

    def forward(self, noise: Tensor) -> Tensor:
        """Add up the three groups' products."""
        return sum(
            ((weights * row).sum() for weights, row in zip(self.groups, noise, strict=True)), noise.new_zeros(())
        )


def job(seed: int, device: str) -> Job:
    """The walkers; `seed` sets where they begin and their noise."""
    random = torch.Generator().manual_seed(seed)
    size = math.sqrt(LR / (2 * WEIGHT_DECAY))
    model = Walkers(size * torch.randn(len(SCALES), WEIGHTS, generator=random)).to(device)
    scales = torch.tensor(SCALES)[:, None]

    def batches(epoch: int) -> Iterator[Tensor]:
        for _ in range(STEPS):
            yield (scales * torch.randn(len(SCALES), WEIGHTS, generator=random)).to(device)

    def evaluate(split: Split) -> dict[str, float]:
        sizes = [weights.square().mean().sqrt().item() for weights in model.groups]
        named = {f"rms_{scale:g}": size for scale, size in zip(SCALES, sizes, strict=True)}
        return {"spread": math.log10(max(sizes) / min(sizes)), **named}

    return Job(model, batches, model, evaluate, EPOCHS, STEPS, schedule=constant, stackable=True)
