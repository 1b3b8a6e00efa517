"""A job that classifies: the loss, the figures and the batches that several workloads share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from adamas.compare.job.job import Job, Split

Examples = tuple[Tensor, Tensor, Tensor]  # inputs, labels to train on, and true classes; one entry an example


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits (examples, classes) and class numbers (examples,), a scalar.

    `torch.nn.functional.cross_entropy` computes the same. `torch.vmap` splits it into some twenty operations, which
    took a quarter of the time of a step with few replicas.
    """
    return -logits.log_softmax(dim=-1).gather(-1, classes.unsqueeze(-1)).mean()


def classify(
    make: Callable[[], nn.Module], parts: Mapping[str, Examples], size: int, epochs: int, seed: int, device: str
) -> Job:
    """Return a job that trains a network to classify.

    Args:
        make: Makes the network, which turns inputs into logits (examples, classes).
        parts: The examples of "train", "validation" and "test".
        size: The number of examples in a batch; an epoch leaves out the rest of a batch.
        epochs: The number of epochs.
        seed: Sets the weights, the order of the data and torch's random numbers.
        device: The device to train on.
    """
    torch.manual_seed(seed)
    model = make().to(device)
    order = torch.Generator().manual_seed(seed)
    inputs, labels, _ = parts["train"]
    steps = len(inputs) // size

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(inputs), generator=order)[: steps * size].split(size):
            yield inputs[rows].to(device), labels[rows].to(device)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(model(batch[0]), batch[1])

    def evaluate(split: Split) -> dict[str, float]:
        inputs, labels, classes = (tensor.to(device) for tensor in parts[split])
        logits = model(inputs)
        return {
            "cross_entropy": cross_entropy(logits, labels).item(),
            "accuracy": (logits.argmax(-1) == classes).float().mean().item(),
        }

    return Job(model, batches, loss, evaluate, epochs, steps_per_epoch=steps, stackable=True)
