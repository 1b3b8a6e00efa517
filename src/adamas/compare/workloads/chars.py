"""A small transformer reads a small text many times: there is a grammar to learn, and every sentence to memorise.

The text is written by `chars_text`, one stretch of it for each split. The model sees up to 32 characters and predicts
the next one, at every place of a window at once; the figures are means over those places, the early ones too.
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

EPOCHS = 40
BATCH = 32
CONTEXT = 32
WIDTH, HEADS, LAYERS = 64, 4, 2
TRAIN, VALIDATION, TEST = 20_000, 10_000, 10_000  # characters
STEPS = (TRAIN - CONTEXT) // CONTEXT // BATCH  # in an epoch, wherever its first window begins


@dataclass(frozen=True)
class Data:
    """The three stretches as indices into the alphabet, and the place in the text where each begins and ends."""

    train: Tensor
    validation: Tensor
    test: Tensor
    alphabet: str
    places: dict[str, range]


@cache
def data() -> Data:
    """Write the text and cut it, once and for all seeds."""
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


class Block(nn.Module):
    """Causal attention, then a network at each place; both read normalised input and add to it."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(WIDTH)
        self.queries_keys_values = nn.Linear(WIDTH, 3 * WIDTH)
        self.attended = nn.Linear(WIDTH, WIDTH)
        self.before_network = nn.LayerNorm(WIDTH)
        self.network = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """(windows, places, width) to the same."""
        x = x + self.attention(self.before_attention(x))
        return x + self.network(self.before_network(x))

    def attention(self, x: Tensor) -> Tensor:
        """Each place reads those up to itself."""
        windows, places, _ = x.shape
        # (3, windows, heads, places, width of a head)
        split = self.queries_keys_values(x).view(windows, places, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(*split, is_causal=True)
        return self.attended(read.transpose(1, 2).reshape(windows, places, WIDTH))


class Reader(nn.Module):
    """Logits of the next character at each place: (windows, places) to (windows, places, characters)."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.character = nn.Embedding(characters, WIDTH)
        self.place = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.next = nn.Linear(WIDTH, characters)
        for embedding in (self.character, self.place):
            nn.init.normal_(embedding.weight, std=0.1)

    def forward(self, characters: Tensor) -> Tensor:
        """Read windows of up to `CONTEXT` characters."""
        places = torch.arange(characters.shape[1], device=characters.device)
        return self.next(self.norm(self.blocks(self.character(characters) + self.place(places))))


def windows(part: Tensor, shift: int = 0) -> Tensor:
    """Cut a stretch, from `shift` on, into windows of the context and one more; each begins where the last ended."""
    return part[shift:].unfold(0, CONTEXT + 1, CONTEXT)


def groups(model: nn.Module) -> list[dict[str, object]]:
    """Matrices, which decay; gains and biases, which do not."""
    params = list(model.parameters())
    return [
        {"params": [param for param in params if param.ndim >= 2]},
        {"params": [param for param in params if param.ndim < 2], "weight_decay": 0.0},
    ]


def job(seed: int, device: str) -> Job:
    """The transformer on the text; `seed` sets the weights, the data order and torch's stream."""
    torch.manual_seed(seed)
    model = Reader(len(data().alphabet)).to(device)
    order = torch.Generator().manual_seed(seed)

    def batches(epoch: int) -> Iterator[Tensor]:
        """Windows cut elsewhere in each epoch; what is left of a batch is left out."""
        shift = int(torch.randint(CONTEXT, (), generator=order))
        cut = windows(data().train, shift)
        for rows in torch.randperm(len(cut), generator=order)[: STEPS * BATCH].split(BATCH):
            yield cut[rows].to(device)

    def loss(batch: Tensor) -> Tensor:
        return functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    def evaluate(split: Split) -> dict[str, float]:
        cut = windows(data().validation if split == "validation" else data().test).to(device)
        logits, following = model(cut[:, :-1]).flatten(0, 1), cut[:, 1:].flatten()
        return {
            "cross_entropy": functional.cross_entropy(logits, following).item(),
            "accuracy": (logits.argmax(1) == following).float().mean().item(),
        }

    return Job(model, batches, loss, evaluate, epochs=EPOCHS, steps_per_epoch=STEPS, parameter_groups=groups(model))
