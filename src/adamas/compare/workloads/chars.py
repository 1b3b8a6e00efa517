"""A small transformer reads a small text many times: it can learn a grammar, and it can memorise every sentence.

`chars_text` writes the text; training, validation and test are three stretches of it. The model predicts the next
character at every position of a window of 32 characters. The figures are means over all positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from adamas.compare.job.job import Job, Split
from adamas.compare.workloads.chars_text import write

BATCH = 32
CONTEXT = 32
TRAIN, VALIDATION, TEST = 20_000, 10_000, 10_000  # characters
_EPOCHS = 40
_WIDTH, _HEADS, _LAYERS = 64, 4, 2
_STEPS = (TRAIN - CONTEXT) // CONTEXT // BATCH  # in an epoch, for every start of its first window


@dataclass(frozen=True)
class Data:
    """The three stretches as indices into the alphabet, and their places in the text."""

    train: Tensor
    validation: Tensor
    test: Tensor
    alphabet: str
    places: dict[str, range]


@cache
def data() -> Data:
    """Write the text and cut it into three stretches, once for all seeds."""
    text = write(TRAIN + VALIDATION + TEST)
    alphabet = "".join(sorted(set(text)))
    indices = torch.tensor([alphabet.index(character) for character in text])
    places = {
        "train": range(TRAIN),
        "validation": range(TRAIN, TRAIN + VALIDATION),
        "test": range(TRAIN + VALIDATION, TRAIN + VALIDATION + TEST),
    }
    parts = {name: indices[place.start : place.stop] for name, place in places.items()}
    return Data(**parts, alphabet=alphabet, places=places)


class _Block(nn.Module):
    """Causal attention, then a network at each position; both normalise their input and add their output to it."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(_WIDTH)
        self.queries_keys_values = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.attended = nn.Linear(_WIDTH, _WIDTH)
        self.before_network = nn.LayerNorm(_WIDTH)
        self.network = nn.Sequential(nn.Linear(_WIDTH, 4 * _WIDTH), nn.GELU(), nn.Linear(4 * _WIDTH, _WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the input's shape (windows, positions, width)."""
        x = x + self._attention(self.before_attention(x))
        return x + self.network(self.before_network(x))

    def _attention(self, x: Tensor) -> Tensor:
        """Let each position read the positions up to itself."""
        windows, positions, _ = x.shape
        # (3, windows, heads, positions, width of a head)
        split = self.queries_keys_values(x).view(windows, positions, 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(*split, is_causal=True)
        return self.attended(read.transpose(1, 2).reshape(windows, positions, _WIDTH))


class _Reader(nn.Module):
    """A transformer from characters (windows, positions) to logits (windows, positions, characters)."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.character = nn.Embedding(characters, _WIDTH)
        self.place = nn.Embedding(CONTEXT, _WIDTH)
        self.blocks = nn.Sequential(*(_Block() for _ in range(_LAYERS)))
        self.norm = nn.LayerNorm(_WIDTH)
        self.next = nn.Linear(_WIDTH, characters)
        for embedding in (self.character, self.place):
            nn.init.normal_(embedding.weight, std=0.1)

    def forward(self, characters: Tensor) -> Tensor:
        """Return the logits of the next character at each position of windows of up to `CONTEXT` characters."""
        places = torch.arange(characters.shape[1], device=characters.device)
        return self.next(self.norm(self.blocks(self.character(characters) + self.place(places))))


def _windows(part: Tensor, shift: int = 0) -> Tensor:
    """Cut a stretch, from `shift` on, into windows of `CONTEXT` + 1 characters; neighbours share one character."""
    return part[shift:].unfold(0, CONTEXT + 1, CONTEXT)


def _groups(model: nn.Module) -> list[dict[str, object]]:
    """Return a group of the matrices, and a group of gains and biases without decay."""
    params = list(model.parameters())
    return [
        {"params": [param for param in params if param.ndim >= 2]},
        {"params": [param for param in params if param.ndim < 2], "weight_decay": 0.0},
    ]


def job(seed: int, device: str) -> Job:
    """Return the transformer on the text; `seed` sets weights, order of the data and torch's random numbers."""
    torch.manual_seed(seed)
    model = _Reader(len(data().alphabet)).to(device)
    order = torch.Generator().manual_seed(seed)

    def batches(epoch: int) -> Iterator[Tensor]:
        """Yield windows with another start in each epoch; the rest of a batch is left out."""
        cut = _windows(data().train, int(torch.randint(CONTEXT, (), generator=order)))
        for rows in torch.randperm(len(cut), generator=order)[: _STEPS * BATCH].split(BATCH):
            yield cut[rows].to(device)

    def loss(batch: Tensor) -> Tensor:
        return functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    def evaluate(split: Split) -> dict[str, float]:
        cut = _windows(data().validation if split == "validation" else data().test).to(device)
        logits, following = model(cut[:, :-1]).flatten(0, 1), cut[:, 1:].flatten()
        return {
            "cross_entropy": functional.cross_entropy(logits, following).item(),
            "accuracy": (logits.argmax(1) == following).float().mean().item(),
        }

    return Job(model, batches, loss, evaluate, epochs=_EPOCHS, steps_per_epoch=_STEPS, parameter_groups=_groups(model))
