"""The noisy digits on a network of twelve residual blocks without normalisation, and three relatives of that job.

Each block adds ReLU(Wx + b) to what it reads, so that activations grow from block to block and nothing evens out the
gradients: between the 10th and the 90th percentile of the weights they differ by a factor of 50 to 60, where LayerNorm
at the start of each block (`job_layernorm`) leaves 12 to 14. Glorot's initialisation was chosen for that spread, before
any decay was tried on it: torch's own halves it, and He's trains badly without normalisation.

Expected: Adam with L2 divides each weight's pull by the size of its gradient, and pulls unevenly where these differ;
AdamW does not, so that any advantage of it should be larger here than with LayerNorm (arXiv 2202.00089).
`job_loss_x10` and `job_loss_x100` multiply the training loss, which changes neither arm's updates but for L2's decay:
AdamW should keep its best weight decay, and Adam with L2 should need 10 and 100 times as much.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from adamas.compare.job.job import Job
from adamas.compare.runner.copies import total
from adamas.compare.workloads.digits import learning

PIXELS, WIDTH, BLOCKS, CLASSES = 64, 64, 12, 10
EPOCHS = 40


class Block(nn.Module):
    """Add a layer's output to what the layer reads, normalised first or as it is."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.layer = nn.Sequential(norm, nn.Linear(WIDTH, WIDTH), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(images, width) to the same."""
        return x + self.layer(x)


def network(layernorm: bool) -> nn.Module:
    """Logits of the class: (images, pixels) to (images, classes)."""
    blocks = (Block(nn.LayerNorm(WIDTH) if layernorm else nn.Identity()) for _ in range(BLOCKS))
    model = nn.Sequential(nn.Linear(PIXELS, WIDTH), *blocks, nn.Linear(WIDTH, CLASSES))
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


def job(seed: int, device: str) -> Job:
    """Without normalisation."""
    return learning(partial(network, layernorm=False), EPOCHS, seed, device)


def job_layernorm(seed: int, device: str) -> Job:
    """The twin: LayerNorm at the start of each block."""
    return learning(partial(network, layernorm=True), EPOCHS, seed, device)


def louder(made: Job, factor: float) -> Job:
    """The same job with its training loss multiplied; what is evaluated stays."""
    return replace(made, loss=lambda batch: factor * total(made.loss(batch)))


def job_loss_x10(seed: int, device: str) -> Job:
    """`job` with a training loss 10 times as large."""
    return louder(job(seed, device), 10.0)


def job_loss_x100(seed: int, device: str) -> Job:
    """`job` with a training loss 100 times as large."""
    return louder(job(seed, device), 100.0)
