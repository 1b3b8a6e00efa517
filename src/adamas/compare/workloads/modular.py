"""Addition modulo 59, learned from 60 % of the table of sums: weight decay decides whether the network learns it.

The recipe is a small version of "grokking" (arXiv 2201.02177, 2301.05217): an embedding for each summand, one hidden
layer, and a cross-entropy over the 59 possible sums. The network is large enough to memorise the training pairs.
Without decay it only memorises them: the training loss goes to zero within some fifty epochs, and the sums of unseen
pairs stay wrong. Decay shrinks the large weights of this solution until the network adds, which needs smaller weights.

Expected: Adam without decay fails at every learning rate. Adam with L2 and AdamW both learn to add, each in a narrow
window of weight decay; the two windows lie a factor of a thousand apart. Both arms end near zero, so their difference
is judged in nats, by an absolute margin.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from adamas.compare.job.job import Job
from adamas.compare.workloads.classification import Examples, classify

_MODULUS = 59
_WIDTH = 32  # of each embedding
_HIDDEN = 64
_EPOCHS = 560  # after 400 epochs, 4 of 48 runs at the chosen settings had not yet learned to add
_BATCH = 512
_TRAIN_SHARE = 0.6  # of the pairs; half of the others are for validation, half for the test
_BETAS = (0.9, 0.98)
_SPLIT_SEED = 20171114


@cache
def data() -> dict[str, Examples]:
    """Split the pairs (pairs, 2) and their sums (pairs,), once for all seeds."""
    numbers = torch.arange(_MODULUS)
    pairs = torch.cartesian_prod(numbers, numbers)
    pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(_SPLIT_SEED))]
    train = int(_TRAIN_SHARE * len(pairs))
    test = (len(pairs) - train) // 2
    parts = zip(("train", "validation", "test"), pairs.split([train, len(pairs) - train - test, test]), strict=True)
    sums = {name: (part, part.sum(-1) % _MODULUS) for name, part in parts}
    return {name: (part, each, each) for name, (part, each) in sums.items()}


class _Adder(nn.Module):
    """A network from pairs (pairs, 2) to logits of the sum (pairs, 59)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Embedding(_MODULUS, _WIDTH)
        self.second = nn.Embedding(_MODULUS, _WIDTH)
        for embedding in (self.first, self.second):  # with torch's 1, the network memorises for much longer
            nn.init.normal_(embedding.weight, std=0.2)
        self.sum = nn.Sequential(nn.Linear(2 * _WIDTH, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _MODULUS))

    def forward(self, pairs: Tensor) -> Tensor:
        """Return the logits of the sum of each pair."""
        return self.sum(torch.cat([self.first(pairs[..., 0]), self.second(pairs[..., 1])], dim=-1))


def _schedule(progress: float) -> float:
    """Return the multiplier of the learning rate: 1, and a line down to 0 over the last tenth of the run."""
    return min(1.0, (1.0 - progress) / 0.1)


def job(seed: int, device: str) -> Job:
    """Return the network on the table of sums."""
    made = classify(_Adder, data(), _BATCH, _EPOCHS, seed, device)
    groups = [{"params": list(made.model.parameters()), "betas": _BETAS}]
    return replace(made, parameter_groups=groups, schedule=_schedule)
