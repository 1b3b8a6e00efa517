"""Adam and AdamW for PyTorch: `from adamas.torch import AdamW` where it said `from torch.optim import AdamW`."""

from adamas.torch.optimizer import Adam, AdamW
from adamas.torch.param_groups import param_groups
from adamas.torch.release import release_gradients

__all__ = ["Adam", "AdamW", "param_groups", "release_gradients"]
