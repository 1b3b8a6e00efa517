"""Addition modulo 59, learnt from 60 % of the table: where weight decay decides everything.

The recipe of "grokking" (arXiv 2201.02177, 2301.05217), small: an embedding for each summand, one hidden layer, and a
cross-entropy over the 59 possible sums. The network has room to memorise every pair it is shown, and without decay it
does just that: the training loss goes to zero in some fifty epochs, and the pairs it was not shown stay wrong. Decay
keeps pulling at a solution that is right but large, until the smaller one that adds takes its place.

Expected: Adam without decay fails at every learning rate; Adam with L2 and AdamW both learn to add, each in a narrow
window of weight decay, and the two windows lie a factor of a thousand apart. Both arms then end near zero, so that
their difference is judged in nats, by an absolute margin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from adamas.compare.job.job import Job, Split
from adamas.compare.workloads.losses import cross_entropy

MODULUS = 59
WIDTH = 32  # of each embedding
HIDDEN = 64
EPOCHS = 560  # with 400, 4 of 48 runs at the chosen settings were not done yet
BATCH = 512
TRAIN_SHARE = 0.6  # of the pairs; half of the others choose, half test
BETAS = (0.9, 0.98)
SPLIT_SEED = 20171114


@dataclass(frozen=True)
class Data:
    """The pairs (pairs, 2) of each part."""

    train: Tensor
    validation: Tensor
    test: Tensor


@cache
def data() -> Data:
    """Split the table of all pairs, once and for all seeds."""
    numbers = torch.arange(MODULUS)
    pairs = torch.cartesian_prod(numbers, numbers)
    pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(SPLIT_SEED))]
    trained = int(TRAIN_SHARE * len(pairs))
    tested = (len(pairs) - trained) // 2
    train, validation, test = pairs.split([trained, len(pairs) - trained - tested, tested])
    return Data(train, validation, test)


class Adder(nn.Module):
    """Logits of the sum: (pairs, 2) to (pairs, modulus)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Embedding(MODULUS, WIDTH)
        self.second = nn.Embedding(MODULUS, WIDTH)
        for embedding in (self.first, self.second):  # torch's 1 memorises for much longer before it adds
            nn.init.normal_(embedding.weight, std=0.2)
        self.sum = nn.Sequential(nn.Linear(2 * WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, MODULUS))

    def forward(self, pairs: Tensor) -> Tensor:
        """Read pairs of summands."""
        return self.sum(torch.cat([self.first(pairs[..., 0]), self.second(pairs[..., 1])], dim=-1))


def settling(progress: float) -> float:
    """Multiplier of the learning rate: 1, and down to 0 over the last tenth, in which what was learnt settles."""
    return min(1.0, (1.0 - progress) / 0.1)


def job(seed: int, device: str) -> Job:
    """The network on the table; `seed` sets the weights, the data order and torch's stream."""
    torch.manual_seed(seed)
    model = Adder().to(device)
    order = torch.Generator().manual_seed(seed)
    train = data().train
    steps = len(train) // BATCH

    def batches(epoch: int) -> Iterator[Tensor]:
        """Pairs in a new order; what is left of a batch is left out."""
        for rows in torch.randperm(len(train), generator=order)[: steps * BATCH].split(BATCH):
            yield train[rows].to(device)

    def loss(pairs: Tensor) -> Tensor:
        return cross_entropy(model(pairs), pairs.sum(-1) % MODULUS)

    def evaluate(split: Split) -> dict[str, float]:
        part = data().validation if split == "validation" else data().test
        pairs = part.to(device)
        logits, sums = model(pairs), pairs.sum(-1) % MODULUS
        return {
            "cross_entropy": cross_entropy(logits, sums).item(),
            "accuracy": (logits.argmax(-1) == sums).float().mean().item(),
        }

    groups = [{"params": list(model.parameters()), "betas": BETAS}]
    return Job(
        model,
        batches,
        loss,
        evaluate,
        epochs=EPOCHS,
        steps_per_epoch=steps,
        parameter_groups=groups,
        schedule=settling,
        stackable=True,
    )
