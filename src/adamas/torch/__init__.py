"""Adam and AdamW for PyTorch: `from adamas.torch import AdamW` where it said `from torch.optim import AdamW`."""

from typing import TYPE_CHECKING, Any

from adamas.torch.optimizer import Adam, AdamW
from adamas.torch.param_groups import param_groups

if TYPE_CHECKING:
    from adamas.torch.release import release_gradients

__all__ = ["Adam", "AdamW", "param_groups", "release_gradients"]


def __getattr__(name: str) -> Any:
    """Import what few need when it is asked for."""
    if name == "release_gradients":
        from adamas.torch.release import release_gradients

        return release_gradients
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
