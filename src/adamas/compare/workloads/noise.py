"""Gradients of pure noise: theory predicts how large weights become under each kind of decay.

Three groups of weights get independent normal noise of standard deviation 0.1, 1 and 10 as gradients, and nothing
else. Adam's steps have one size in all three groups, a random walk. Decay pulls back, and the weights settle at a size
that can be computed: sqrt(lr / (2 weight_decay)) under AdamW, at every scale of the gradient, and
sqrt(lr scale / (2 weight_decay)) under Adam with L2, because Adam divides the L2 term by the scale. One weight decay is
therefore one strength of regularisation under AdamW, and a different strength for every scale under L2.

Nothing is tuned. The settings give both arms the same size at scale 1: weights of 0.039. These weights are so small
that the prediction can leave out the part of decay in the second moment, 1.5 % at scale 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from adamas.compare.job.job import Job, Split, constant

SCALES = (0.1, 1.0, 10.0)  # standard deviations of the gradient
LR, WEIGHT_DECAY = 3e-3, 1.0
_WEIGHTS = 8192  # of each scale: an RMS over them is known to 0.8 %
# The variance forgets its start over scale / (2 lr weight_decay) steps, 1,700 at scale 10.
_EPOCHS, _STEPS = 8, 1000


class _Walkers(nn.Module):
    """The sum of weights times noise: (scales, weights) to a scalar with the noise as its gradient."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.groups = nn.ParameterList([row.clone() for row in start])

    def forward(self, noise: Tensor) -> Tensor:
        """Return the sum over the three groups."""
        products = ((weights * row).sum() for weights, row in zip(self.groups, noise, strict=True))
        return sum(products, noise.new_zeros(()))


def job(seed: int, device: str) -> Job:
    """Return the job; `seed` sets the first weights and the noise."""
    random = torch.Generator().manual_seed(seed)
    size = math.sqrt(LR / (2 * WEIGHT_DECAY))
    model = _Walkers(size * torch.randn(len(SCALES), _WEIGHTS, generator=random)).to(device)
    scales = torch.tensor(SCALES)[:, None]

    def batches(epoch: int) -> Iterator[Tensor]:
        for _ in range(_STEPS):
            yield (scales * torch.randn(len(SCALES), _WEIGHTS, generator=random)).to(device)

    def evaluate(split: Split) -> dict[str, float]:
        sizes = [weights.square().mean().sqrt().item() for weights in model.groups]
        named = {f"rms_{scale:g}": size for scale, size in zip(SCALES, sizes, strict=True)}
        return {"spread": math.log10(max(sizes) / min(sizes)), **named}

    return Job(model, batches, model, evaluate, _EPOCHS, _STEPS, schedule=constant, stackable=True)
