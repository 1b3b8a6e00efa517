"""Words of very different frequency, each as telling as the next: what becomes of the weights of rare features?

A text is a bag of 20 words drawn by Zipf's law from 1,000, of which most occur in few texts. Every word votes for one
of two classes with a strength that has nothing to do with how often it occurs, and the label follows the sum of the
votes, with noise. Adam's division by sqrt(v_hat) takes larger steps on the weights of rare words than plain gradient
descent would, which is what adaptive methods were made for (arXiv 1412.6980, section 1).

With L2 in the gradient the same division works on the decay. A rare word's gradient is zero in most steps, so that its
sqrt(v_hat) is small and its decay large, and goes on in all the steps in which the word does not occur: L2 forgets rare
words first. AdamW decays every weight alike. Expected: AdamW wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from adamas.compare.job.job import Job, Split
from adamas.compare.workloads.losses import cross_entropy

WORDS, LENGTH, HIDDEN = 1000, 20, 32
TRAIN, VALIDATION, TEST = 2000, 2000, 4000  # texts
EPOCHS, BATCH = 30, 100
VOTE = 1.5  # standard deviation of a word's vote, in units of the log-odds: labels are noisy where votes cancel
SPLIT_SEED = 20171114


@dataclass(frozen=True)
class Texts:
    """How often each word occurs in each text (texts, words), and the classes (texts,)."""

    counts: Tensor
    classes: Tensor


@cache
def data() -> dict[str, Texts]:
    """Draw votes, texts and labels, once and for all seeds."""
    random = torch.Generator().manual_seed(SPLIT_SEED)
    frequency = 1.0 / torch.arange(1, WORDS + 1)
    votes = VOTE * torch.randn(WORDS, generator=random)
    texts = TRAIN + VALIDATION + TEST
    drawn = torch.multinomial(frequency.expand(texts, -1), LENGTH, replacement=True, generator=random)
    counts = torch.zeros(texts, WORDS).scatter_add_(1, drawn, torch.ones(texts, LENGTH))
    odds = torch.sigmoid(counts @ votes / LENGTH**0.5)
    classes = (torch.rand(texts, generator=random) < odds).long()
    parts = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    sizes = list(parts.values())
    return {name: Texts(*part) for name, *part in zip(parts, counts.split(sizes), classes.split(sizes), strict=True)}


def job(seed: int, device: str) -> Job:
    """A 1000-32-2 network on the bags; `seed` sets the weights, the data order and torch's stream."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(WORDS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2)).to(device)
    order = torch.Generator().manual_seed(seed)
    train = data()["train"]

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(TRAIN, generator=order).split(BATCH):
            yield train.counts[rows].to(device), train.classes[rows].to(device)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        counts, classes = batch
        return cross_entropy(model(counts), classes)

    def evaluate(split: Split) -> dict[str, float]:
        part = data()[split]
        logits, classes = model(part.counts.to(device)), part.classes.to(device)
        return {
            "cross_entropy": cross_entropy(logits, classes).item(),
            "accuracy": (logits.argmax(1) == classes).float().mean().item(),
        }

    return Job(model, batches, loss, evaluate, epochs=EPOCHS, steps_per_epoch=TRAIN // BATCH, stackable=True)
