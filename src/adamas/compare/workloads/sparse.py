"""Words that differ in frequency and not in importance: how does decay treat the weights of rare features?

A text is a bag of 20 words, drawn by Zipf's law from 1,000 words; most words occur in few texts. Every word has a vote
for one of two classes, and the strength of a vote does not depend on the word's frequency. The label follows the sum
of the votes, with noise. Adam divides by sqrt(v_hat), so its steps on the weights of rare words are larger than those
of plain gradient descent; adaptive methods were made for this (arXiv 1412.6980, section 1).

With L2 in the gradient, Adam divides the decay too. A rare word's gradient is zero in most steps. Its sqrt(v_hat) is
then small and its decay large, also in the steps without the word: L2 forgets rare words first. AdamW's decay is the
same for every weight. Expected: AdamW wins.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adamas.compare.job.job import Job
from adamas.compare.workloads.classification import classify

WORDS, LENGTH = 1000, 20
_HIDDEN = 32
_TEXTS = {"train": 2000, "validation": 2000, "test": 4000}
_EPOCHS, _BATCH = 30, 100
_VOTE = 1.5  # standard deviation of a word's vote in log-odds: labels are noisy where votes cancel
_SPLIT_SEED = 20171114


class Texts(NamedTuple):
    """How often each word occurs in each text (texts, words), and the classes (texts,)."""

    counts: Tensor
    classes: Tensor


@cache
def data() -> dict[str, Texts]:
    """Draw votes, texts and labels, once for all seeds."""
    random = torch.Generator().manual_seed(_SPLIT_SEED)
    frequency = 1.0 / torch.arange(1, WORDS + 1)
    votes = _VOTE * torch.randn(WORDS, generator=random)
    sizes = list(_TEXTS.values())
    texts = sum(sizes)
    drawn = torch.multinomial(frequency.expand(texts, -1), LENGTH, replacement=True, generator=random)
    counts = torch.zeros(texts, WORDS).scatter_add_(1, drawn, torch.ones(texts, LENGTH))
    odds = torch.sigmoid(counts @ votes / LENGTH**0.5)
    classes = (torch.rand(texts, generator=random) < odds).long()
    return {name: Texts(*part) for name, *part in zip(_TEXTS, counts.split(sizes), classes.split(sizes), strict=True)}


def _network() -> nn.Module:
    """Return a network from counts (texts, words) to logits (texts, 2)."""
    return nn.Sequential(nn.Linear(WORDS, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 2))


def job(seed: int, device: str) -> Job:
    """Return a 1000-32-2 network on the bags of words."""
    parts = {name: (part.counts, part.classes, part.classes) for name, part in data().items()}
    return classify(_network, parts, _BATCH, _EPOCHS, seed, device)
