"""Handwritten digits with shuffled labels: a run takes a second, and the noise makes regularisation matter.

The labels are shuffled before the images are split, so that all three parts have the same noise. A network with a low
cross-entropy must then doubt its classes as often as the labels are wrong. With clean test labels this doubt would
count against the network and against every regulariser. Accuracy counts the true classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from adamas.compare.job.job import Job
from adamas.compare.workloads.classification import classify

EPOCHS = 60
BATCH = 50
TRAIN = 500
_VALIDATION = 500  # the remaining 797 of the 1,797 images are the test part
_SHUFFLED = 0.2  # fraction of the labels; about a tenth of these get their own class again
_SPLIT_SEED = 20171114  # the same data for every seed, so that no test image ever trains or chooses


class Images(NamedTuple):
    """Images (examples, 64), scaled to [0, 1], with their noisy labels (examples,) and true classes (examples,)."""

    images: Tensor
    labels: Tensor
    classes: Tensor


class Data(NamedTuple):
    """The three parts, and the rows of scikit-learn's table that each part took; tests check that none are shared."""

    train: Images
    validation: Images
    test: Images
    rows: dict[str, list[int]]


def table() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits: images (examples, 64) of 0 to 16, and classes (examples,).

    The file is read directly if it is at its usual place. An import of scikit-learn takes a second in every process,
    as long as a run.
    """
    found = find_spec("sklearn")
    file = Path(found.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if found else Path()
    if not file.is_file():
        from sklearn.datasets import load_digits

        loaded: Any = load_digits(return_X_y=True)
        return loaded
    rows = np.loadtxt(file, delimiter=",")
    return rows[:, :-1], rows[:, -1].astype(int)


@cache
def data() -> Data:
    """Shuffle a fraction of the labels and split the images, once for all seeds."""
    images, classes = table()
    random = np.random.default_rng(_SPLIT_SEED)
    noisy = random.choice(len(classes), int(_SHUFFLED * len(classes)), replace=False)
    labels = classes.copy()
    labels[noisy] = random.permutation(labels[noisy])
    order = random.permutation(len(classes))
    rows = np.split(order, [TRAIN, TRAIN + _VALIDATION])
    pixels = images / 16.0
    parts = (
        Images(torch.tensor(pixels[part], dtype=torch.float32), torch.tensor(labels[part]), torch.tensor(classes[part]))
        for part in rows
    )
    names = ("train", "validation", "test")
    return Data(*parts, rows={name: part.tolist() for name, part in zip(names, rows, strict=True)})


def network() -> nn.Module:
    """Return a network from images (examples, 64) to logits (examples, 10)."""
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def job(seed: int, device: str) -> Job:
    """Return a 64-256-256-10 network on the noisy digits."""
    return classify_digits(network, EPOCHS, seed, device)


def classify_digits(make: Callable[[], nn.Module], epochs: int, seed: int, device: str) -> Job:
    """Return the job that trains a network on the noisy digits; `classify` explains the arguments."""
    train, validation, test, _ = data()
    return classify(make, {"train": train, "validation": validation, "test": test}, BATCH, epochs, seed, device)
