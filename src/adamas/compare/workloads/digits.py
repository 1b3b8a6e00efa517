"""Digits with shuffled labels: small enough to train in a second, noisy enough that regularisation matters.

The labels are shuffled before the images are split, so that all three parts come from one noisy source, as they do in
practice: cross-entropy then asks for calibrated doubt. Had the test labels been cleaned, a network that had learned the
noise well would be marked down for doubting, and every regulariser with it. Accuracy counts the true classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adamas.compare.job.job import Job, Split
from adamas.compare.workloads.losses import cross_entropy

EPOCHS = 60
BATCH = 50
TRAIN, VALIDATION = 500, 500  # the remaining 797 of the 1,797 images test
SHUFFLED = 0.2  # of the labels; about a tenth of these land on their own class again
SPLIT_SEED = 20171114  # the data are the same for every seed: a test image never chooses, nor trains


@dataclass(frozen=True)
class Examples:
    """Images (examples, 64), scaled to [0, 1], their labels as given and their true classes (examples,)."""

    images: Tensor
    labels: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Data:
    """The three parts and the rows of scikit-learn's table that each took, for tests of disjointness."""

    train: Examples
    validation: Examples
    test: Examples
    rows: dict[str, list[int]]


def table() -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's digits: images (examples, 64) of 0 to 16, classes (examples,).

    Read from its file, if that is where it is known to be: to import scikit-learn takes a second in every process, as
    long as a run.
    """
    found = find_spec("sklearn")
    file = Path(found.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if found else Path()
    if not file.is_file():
        from sklearn.datasets import load_digits

        images, classes = load_digits(return_X_y=True)
        return images, classes
    rows = np.loadtxt(file, delimiter=",")
    return rows[:, :-1], rows[:, -1].astype(int)


@cache
def data() -> Data:
    """Shuffle a part of the labels among themselves and split the images, once and for all seeds."""
    images, classes = table()
    random = np.random.default_rng(SPLIT_SEED)
    noisy = random.choice(len(classes), int(SHUFFLED * len(classes)), replace=False)
    labels = classes.copy()
    labels[noisy] = random.permutation(labels[noisy])
    order = random.permutation(len(classes))
    rows = {
        "train": order[:TRAIN],
        "validation": order[TRAIN : TRAIN + VALIDATION],
        "test": order[TRAIN + VALIDATION :],
    }
    parts = {
        name: Examples(
            torch.tensor(images[part] / 16.0, dtype=torch.float32),
            torch.tensor(labels[part]),
            torch.tensor(classes[part]),
        )
        for name, part in rows.items()
    }
    return Data(**parts, rows={name: part.tolist() for name, part in rows.items()})


def network() -> nn.Module:
    """Logits of the class: (images, pixels) to (images, classes)."""
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def job(seed: int, device: str) -> Job:
    """A 64-256-256-10 network on the noisy digits."""
    return learning(network, EPOCHS, seed, device)


def learning(make: Callable[[], nn.Module], epochs: int, seed: int, device: str) -> Job:
    """A network on the noisy digits; `seed` sets the weights, the data order and torch's stream."""
    torch.manual_seed(seed)
    model = make().to(device)
    order = torch.Generator().manual_seed(seed)
    train = data().train

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(TRAIN, generator=order).split(BATCH):
            yield train.images[rows].to(device), train.labels[rows].to(device)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return cross_entropy(model(images), labels)

    def evaluate(split: Split) -> dict[str, float]:
        part = data().validation if split == "validation" else data().test
        logits = model(part.images.to(device))
        return {
            "cross_entropy": cross_entropy(logits, part.labels.to(device)).item(),
            "accuracy": (logits.argmax(1) == part.classes.to(device)).float().mean().item(),
        }

    return Job(model, batches, loss, evaluate, epochs=epochs, steps_per_epoch=TRAIN // BATCH, stackable=True)
