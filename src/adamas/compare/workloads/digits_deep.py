"""The noisy digits on a network of twelve residual blocks without normalisation, and three variants of this job.

Each block adds ReLU(Wx + b) to its input. Activations grow from block to block, and so the sizes of gradients differ:
between the 10th and the 90th percentile of the weights by a factor of 50 to 60. LayerNorm at the start of each block
(`job_layernorm`) reduces the factor to 12 to 14. Glorot's initialisation was chosen for this factor before any decay
was tried: torch's own halves it, and He's trains badly without normalisation.

Expected: Adam with L2 divides the decay of each weight by the size of its gradient, so the decay is uneven where these
sizes differ; AdamW's is even. AdamW's advantage should be larger here than with LayerNorm (arXiv 2202.00089).
`job_loss_x10` and `job_loss_x100` multiply the training loss. The updates of both arms stay the same, except for the
decay of L2: AdamW should keep its best weight decay, and Adam with L2 should need 10 and 100 times as much.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from adamas.compare.job.evaluate import total
from adamas.compare.job.job import Job
from adamas.compare.workloads.digits import classify_digits

BLOCKS = 12
_PIXELS, _WIDTH, _CLASSES = 64, 64, 10
_EPOCHS = 40


class _Block(nn.Module):
    """Adds the output of a layer to its input; the layer may normalise the input first."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.layer = nn.Sequential(norm, nn.Linear(_WIDTH, _WIDTH), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the input's shape (images, width)."""
        return x + self.layer(x)


def _network(layernorm: bool) -> nn.Module:
    """Return a network from images (examples, 64) to logits (examples, 10)."""
    blocks = (_Block(nn.LayerNorm(_WIDTH) if layernorm else nn.Identity()) for _ in range(BLOCKS))
    model = nn.Sequential(nn.Linear(_PIXELS, _WIDTH), *blocks, nn.Linear(_WIDTH, _CLASSES))
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


def job(seed: int, device: str) -> Job:
    """Return the job without normalisation."""
    return classify_digits(partial(_network, layernorm=False), _EPOCHS, seed, device)


def job_layernorm(seed: int, device: str) -> Job:
    """Return the same job with LayerNorm at the start of each block."""
    return classify_digits(partial(_network, layernorm=True), _EPOCHS, seed, device)


def job_loss_x10(seed: int, device: str) -> Job:
    """Return `job` with its training loss times 10."""
    return _multiply_loss(job(seed, device), 10.0)


def job_loss_x100(seed: int, device: str) -> Job:
    """Return `job` with its training loss times 100."""
    return _multiply_loss(job(seed, device), 100.0)


def _multiply_loss(made: Job, factor: float) -> Job:
    """Return a job with its training loss multiplied; the figures of `evaluate` stay the same."""
    return replace(made, loss=lambda batch: factor * total(made.loss(batch)))
