"""Models of many kinds train in a stack as they do alone, whatever the memory layout of their gradients is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adamas.compare import Job
from adamas.compare.runner import training
from adamas.compare.runner.tasks import Task
from adamas.compare.study.arms import ARMS
from adamas.compare.study.run import Run
from tests.compare.test_user_jobs import same

ROWS, BATCH, EPOCHS, CLASSES, ITEMS = 48, 12, 4, 4, 24
RUNS = [
    Run("search", arm, lr, decay, 3)
    for arm, decay in (("none", 0.0), ("adam_l2", 1e-2), ("adamw", 0.3))
    for lr in (1e-2, 3e-2)
]

Make = Callable[[], nn.Module]


class Of(nn.Module):
    """A function of a batch that uses parameters and modules by name."""

    def __init__(self, function: Callable[..., Tensor], **parts: Tensor | nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part if isinstance(part, nn.Module) else nn.Parameter(0.3 * part))

    def forward(self, batch: Tensor) -> Tensor:
        return self.function(self, batch)


def chain(*parts: nn.Module, features: int) -> nn.Module:
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(features, CLASSES))


def attention() -> nn.Module:
    def forward(model: Of, words: Tensor) -> Tensor:
        hidden = model.words(words) + model.places
        query, key, value = model.mixed(model.norm(hidden)).chunk(3, dim=-1)
        return model.out((hidden + (query @ key.mT).softmax(-1) @ value).mean(1))

    parts = {"words": nn.Embedding(ITEMS, 8), "places": torch.randn(3, 8), "norm": nn.LayerNorm(8)}
    return Of(forward, **parts, mixed=nn.Linear(8, 24), out=nn.Linear(8, CLASSES))


def tied() -> nn.Module:
    model = Of(
        lambda model, words: model.out(model.back(model.words(words).mean(1))),
        words=nn.Embedding(ITEMS, 6),
        back=nn.Linear(6, ITEMS, bias=False),
        out=nn.Linear(ITEMS, CLASSES),
    )
    model.back.weight = model.words.weight
    return model


IMAGES: dict[str, Make] = {
    "convolution": lambda: chain(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.GroupNorm(2, 4), features=36),
    "grouped": lambda: chain(nn.Conv2d(3, 6, 3, groups=3), nn.SiLU(), nn.MaxPool2d(2), features=24),
    "transposed convolution": lambda: chain(nn.ConvTranspose2d(3, 2, 2, stride=2), nn.AvgPool2d(4), features=18),
    "batch norm": lambda: chain(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), features=32),
    "channels last": lambda: chain(nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), nn.GELU(), features=64),
    "dropped channels": lambda: chain(nn.Dropout2d(0.3), features=108),
}
WORDS: dict[str, Make] = {
    "embedding": lambda: chain(nn.Embedding(ITEMS, 4), features=12),
    "padded": lambda: chain(nn.Embedding(ITEMS, 4, padding_idx=0), features=12),
    "of width 1": lambda: chain(nn.Embedding(ITEMS, 1), features=3),
    "bag": lambda: chain(nn.EmbeddingBag(ITEMS, 4), features=4),
    "rows by index": lambda: Of(lambda model, words: model.table[words].sum(1), table=torch.randn(ITEMS, CLASSES)),
    "columns by index": lambda: Of(
        lambda model, words: model.table[:, words].sum(-1).T, table=torch.randn(CLASSES, ITEMS)
    ),
    "attention": attention,
    "tied": tied,
}
VECTORS: dict[str, Make] = {
    "bilinear": lambda: Of(
        lambda model, x: model.pairs(x[:, :3], x[:, 3:].contiguous()), pairs=nn.Bilinear(3, 3, CLASSES)
    ),
    "slopes": lambda: chain(nn.Linear(6, 8), nn.PReLU(8), nn.Linear(8, 8), nn.PReLU(), features=8),
    "scalar": lambda: Of(lambda model, x: model.out(x) * model.size.exp(), out=nn.Linear(6, 4), size=torch.tensor(0.1)),
    "transposed": lambda: Of(
        lambda model, x: x @ model.one.T @ model.other, one=torch.randn(5, 6), other=torch.randn(5, 4)
    ),
    "permuted": lambda: Of(
        lambda model, x: x @ model.one.permute(2, 0, 1).reshape(6, 12) @ model.other,
        one=torch.randn(3, 4, 6),
        other=torch.randn(12, CLASSES),
    ),
    "picked": lambda: Of(
        lambda model, x: x @ model.one[[0, 2, 4, 6, 8, 10]] @ model.other[::2],
        one=torch.randn(12, 8),
        other=torch.randn(16, CLASSES),
    ),
    "expanded": lambda: Of(lambda model, x: x @ model.row.expand(6, 4) + model.row, row=torch.randn(1, CLASSES)),
    "joined": lambda: Of(
        lambda model, x: x @ torch.cat([model.one, model.other], 1), one=torch.randn(6, 1), other=torch.randn(6, 3)
    ),
    "summed up": lambda: Of(lambda model, x: (x @ model.one.cumsum(0).tril())[:, :CLASSES], one=torch.randn(6, 6)),
    "weight norm": lambda: chain(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), features=8),
    "largest": lambda: Of(lambda model, x: model.all(x).view(-1, CLASSES, 3).max(-1).values, all=nn.Linear(6, 12)),
    "sorted": lambda: Of(lambda model, x: model.all(x).sort(-1).values[:, :CLASSES], all=nn.Linear(6, 8)),
    "noisy": lambda: Of(lambda model, x: model.out(x + 0.1 * torch.randn_like(x)), out=nn.Linear(6, CLASSES)),
    "unused": lambda: Of(lambda model, x: model.out(x), out=nn.Linear(6, CLASSES), never=torch.randn(3)),
}
INPUTS: dict[str, Callable[[], Tensor]] = {
    "images": lambda: torch.randn(2 * ROWS, 3, 6, 6, dtype=torch.float64),
    "words": lambda: torch.randint(ITEMS, (2 * ROWS, 3)),
    "vectors": lambda: torch.randn(2 * ROWS, 6, dtype=torch.float64),
}
KINDS = [
    pytest.param(inputs, make, id=name)
    for inputs, models in (("images", IMAGES), ("words", WORDS), ("vectors", VECTORS))
    for name, make in models.items()
]


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch.vmap may compute one by one
@pytest.mark.parametrize(("inputs", "make"), KINDS)
def test_a_stack_of_any_model_trains_as_each_replica_alone(inputs: str, make: Make) -> None:
    """They agree to rounding, in float64.

    The gradients of a stacked embedding interleave the rows of the replicas. Weights with the same strides, one replica
    after the other, would share memory if the number of rows and of replicas have a common factor, as here.
    """

    def job(seed: int, device: str) -> Job:
        torch.manual_seed(7)
        given, classes = INPUTS[inputs](), torch.randint(CLASSES, (2 * ROWS,))
        torch.manual_seed(seed)
        model = make().double()

        def loss(rows: Tensor) -> Tensor:
            return functional.cross_entropy(model(given[rows]), classes[rows])

        return Job(
            model,
            lambda epoch: torch.randperm(ROWS).split(BATCH),
            loss,
            lambda split: {"loss": loss(torch.arange(ROWS, 2 * ROWS)).item()},
            EPOCHS,
            ROWS // BATCH,
            stackable=True,
        )

    together = training.train_task(job, "cpu", ARMS, Task(tuple(RUNS), "loss"))
    for one, run in zip(together, RUNS, strict=True):
        same(one, training.train_task(job, "cpu", ARMS, Task((run,), "loss"))[0])
