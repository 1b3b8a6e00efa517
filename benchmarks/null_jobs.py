"""Real training on which all arms are the same by construction: only a weight that never has a gradient decays.

Each job takes the number of a study, which chooses its data and seeds: a hundred studies are a hundred draws of all
chance that a study has. The first job is calm, the second is an ordinary classifier, the third is as noisy as a GAN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from adamas.compare import Job, OwnLoop
from adamas.compare.job.job import Split


class Idle(nn.Module):
    """A model beside a weight that it does not use."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.idle = nn.Parameter(torch.ones(4))

    def groups(self) -> list[dict[str, Any]]:
        """Return parameter groups of which only that of the unused weight decays."""
        return [{"params": list(self.model.parameters()), "weight_decay": 0.0}, {"params": [self.idle]}]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the model returns."""
        return self.model(inputs)


def _seeded(study: int, seed: int) -> None:
    torch.manual_seed(100_000 * (study + 1) + seed)


def _supervised(
    model: Idle, inputs: Tensor, targets: Tensor, measure: Callable[[Tensor, Tensor], Tensor], batch: int, epochs: int
) -> Job:
    """Return a job on data of which a third each is for training, validation and test."""
    size = len(inputs) // 3
    parts = {name: slice(i * size, (i + 1) * size) for i, name in enumerate(("train", "validation", "test"))}

    def batches(epoch: int) -> Iterator[Tensor]:
        return iter(torch.randperm(size).split(batch))

    def loss(rows: Tensor | slice) -> Tensor:
        return measure(model(inputs[rows]), targets[rows])

    def evaluate(split: Split) -> dict[str, float]:
        return {"loss": loss(parts[split]).item()}

    return Job(model, batches, loss, evaluate, epochs, size // batch, parameter_groups=model.groups())


def regression(study: int) -> Callable[[int, str], Job]:
    """Return a linear model on noisy data, with 30 steps."""

    def job(seed: int, device: str) -> Job:
        data = torch.Generator().manual_seed(study)
        inputs = torch.randn(150, 6, generator=data)
        targets = inputs[:, :1] + 0.5 * torch.randn(150, 1, generator=data)
        _seeded(study, seed)
        return _supervised(Idle(nn.Linear(6, 1)), inputs, targets, functional.mse_loss, batch=10, epochs=6)

    return job


def classifier(study: int) -> Callable[[int, str], Job]:
    """Return a small network with dropout on two moons with noise, with 40 steps."""

    def job(seed: int, device: str) -> Job:
        data = torch.Generator().manual_seed(study)
        angle = torch.rand(240, generator=data) * torch.pi
        labels = torch.arange(240) % 2
        points = torch.stack([torch.cos(angle), torch.sin(angle)], 1) * (1 - 2 * labels[:, None])
        points = points + labels[:, None] * torch.tensor([1.0, 0.5]) + 0.3 * torch.randn(240, 2, generator=data)
        _seeded(study, seed)
        model = Idle(nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2)))
        return _supervised(model, points, labels, functional.cross_entropy, batch=16, epochs=8)

    return job


def _step(optimizer: Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def gan(study: int) -> Callable[[int, str], OwnLoop]:
    """Return a generator and a discriminator of one-dimensional numbers; the distance of quantiles is the figure."""

    def job(seed: int, device: str) -> OwnLoop:
        _seeded(study, seed)
        model = nn.ModuleDict(
            {
                "generator": Idle(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))),
                "discriminator": Idle(nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))),
            }
        )
        make, judge = model["generator"], model["discriminator"]

        def fit(optimizers: dict[str, Optimizer]) -> None:
            for _ in range(25):
                real, made = 2 + 0.5 * torch.randn(16, 1), make(torch.randn(16, 2))
                judged = functional.softplus(judge(made.detach())) + functional.softplus(-judge(real))
                _step(optimizers["discriminator"], judged.mean())
                _step(optimizers["generator"], functional.softplus(-judge(made)).mean())

        def evaluate(split: Split) -> dict[str, float]:
            noise = torch.Generator().manual_seed({"validation": 1, "test": 2}[split])
            made = make(torch.randn(200, 2, generator=noise)).flatten().sort().values
            real = (2 + 0.5 * torch.randn(200, generator=noise)).sort().values
            return {"distance": (made - real).abs().mean().item()}

        groups: Any = {name: part.groups() for name, part in model.items()}
        return OwnLoop(model, fit, evaluate, 1, metric="distance", parameter_groups=groups)

    return job


JOBS = {"regression": regression, "classifier": classifier, "gan": gan}
