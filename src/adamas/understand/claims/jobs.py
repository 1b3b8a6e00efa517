"""The small training jobs of the claims, made of the data of `adamas compare`'s workloads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from adamas.compare.job.job import Job, Split, constant
from adamas.compare.workloads import chars, digits
from adamas.compare.workloads.classification import classify, cross_entropy

_WIDTH, _HEADS, _CONTEXT, _BATCH = 32, 2, 16, 32


def digits_job(
    seed: int, epochs: int = 30, batch: int = 50, clean: bool = False, network: Callable[[], nn.Module] | None = None
) -> Job:
    """Return a 64-64-10 network, or another one, on 500 handwritten digits; a fifth of the labels are shuffled.

    Args:
        seed: Sets the weights and the order of the data.
        epochs: The number of epochs.
        batch: The number of images in a batch.
        clean: Whether every image has its true class as its label, in all parts.
        network: Makes another network.
    """
    named = zip(("train", "validation", "test"), digits.data()[:3], strict=True)
    parts = {name: (part.images, part.classes if clean else part.labels, part.classes) for name, part in named}
    return classify(network or _mlp, parts, batch, epochs, seed, "cpu")


def deep_job(seed: int, epochs: int = 30, factor: float = 1.0, normalise: bool = False) -> Job:
    """Return six residual blocks of width 32 on the same digits; `factor` multiplies the training loss."""
    job = digits_job(seed, epochs, network=partial(_deep, normalise))
    return replace(job, loss=lambda batch: factor * cross_entropy(job.model(batch[0]), batch[1]))


def steady(job: Job) -> Job:
    """Return the job with a constant learning rate."""
    return replace(job, schedule=constant)


def _mlp() -> nn.Module:
    """Return a small network with one hidden layer."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


class Block(nn.Module):
    """Adds the output of a layer to its input; the output may be normalised, so that the layer's scale is free."""

    def __init__(self, normalise: bool) -> None:
        super().__init__()
        norm = nn.LayerNorm(_WIDTH, elementwise_affine=False) if normalise else nn.Identity()
        self.layer = nn.Sequential(nn.Linear(_WIDTH, _WIDTH, bias=False), norm, nn.ReLU())
        nn.init.xavier_uniform_(self.layer[0].weight)  # pyright: ignore[reportArgumentType] - a Sequential of anything

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the input's shape."""
        return x + self.layer(x)


def _deep(normalise: bool) -> nn.Module:
    """Return the network of residual blocks."""
    return nn.Sequential(nn.Linear(64, _WIDTH), *(Block(normalise) for _ in range(6)), nn.Linear(_WIDTH, 10))


class Transformer(nn.Module):
    """One block of causal attention and a network, from characters (windows, positions) to logits."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.character = nn.Embedding(characters, _WIDTH)
        self.place = nn.Parameter(0.1 * torch.randn(_CONTEXT, _WIDTH))
        self.mixed = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.attended = nn.Linear(_WIDTH, _WIDTH)
        self.network = nn.Sequential(nn.Linear(_WIDTH, 4 * _WIDTH), nn.GELU(), nn.Linear(4 * _WIDTH, _WIDTH))
        self.norms = nn.ModuleList(nn.LayerNorm(_WIDTH) for _ in range(3))
        self.next = nn.Linear(_WIDTH, characters)
        self.register_buffer("hidden", torch.ones(_CONTEXT, _CONTEXT).triu(1).bool(), persistent=False)
        nn.init.normal_(self.character.weight, std=0.1)

    def forward(self, characters: Tensor) -> Tensor:
        """Return the logits of the next character at each position."""
        x = self.character(characters) + self.place
        heads = self.mixed(self.norms[0](x)).unflatten(-1, (3, _HEADS, -1)).movedim(-2, -4)
        query, key, value = heads.unbind(-2)  # each (windows, heads, positions, width of a head)
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        shares = scores.masked_fill(self.get_buffer("hidden"), float("-inf")).softmax(-1)
        x = x + self.attended((shares @ value).transpose(-2, -3).flatten(-2))
        x = x + self.network(self.norms[1](x))
        return self.next(self.norms[2](x))


def transformer_job(seed: int, epochs: int = 15, characters: int = 8000) -> Job:
    """Return a small transformer that reads a small text many times, and predicts each next character."""
    torch.manual_seed(seed)
    data = chars.data()
    model, order = Transformer(len(data.alphabet)), torch.Generator().manual_seed(seed)
    steps = (characters - _CONTEXT) // _CONTEXT // _BATCH

    def windows(part: Tensor, shift: int = 0) -> Tensor:
        return part[shift:].unfold(0, _CONTEXT + 1, _CONTEXT)

    def batches(epoch: int) -> Iterator[Tensor]:
        cut = windows(data.train[:characters], int(torch.randint(_CONTEXT, (), generator=order)))
        yield from cut[torch.randperm(len(cut), generator=order)[: steps * _BATCH]].split(_BATCH)

    def loss(batch: Tensor) -> Tensor:
        return functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    def evaluate(split: Split) -> dict[str, float]:
        return {"cross_entropy": loss(windows(data.validation if split == "validation" else data.test)).item()}

    params = list(model.parameters())
    groups: list[dict[str, object]] = [
        {"params": [param for param in params if param.ndim >= 2]},
        {"params": [param for param in params if param.ndim < 2], "weight_decay": 0.0},
    ]
    return Job(
        model, batches, loss, evaluate, epochs, steps, metric="cross_entropy", parameter_groups=groups, stackable=True
    )
