"""Adam and AdamW for PyTorch: import them from `adamas.torch` instead of `torch.optim`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from adamas.torch.optimizer import Adam, AdamW
from adamas.torch.param_groups import param_groups

if TYPE_CHECKING:
    from adamas.torch.load_planner import LoadPlanner
    from adamas.torch.release import release_gradients
    from adamas.torch.weight_decay_schedule import WeightDecaySchedule

__all__ = ["Adam", "AdamW", "LoadPlanner", "WeightDecaySchedule", "param_groups", "release_gradients"]

# Imported at their first use, because many programs need only the optimizers.
_LATER = {
    "LoadPlanner": "load_planner",
    "WeightDecaySchedule": "weight_decay_schedule",
    "release_gradients": "release",
}


def __getattr__(name: str) -> Any:
    """Import a name at its first use, and keep it."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(f"adamas.torch.{_LATER[name]}"), name)
    return found
