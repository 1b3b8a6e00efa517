"""Step in Lightning's backward, with its accumulation and its clipping."""

from __future__ import annotations

from typing import Any

from adamas.extras import needs
from adamas.torch.release import Release, release_gradients

with needs("lightning", extra="dev"):
    from lightning.pytorch import Callback
    from lightning.pytorch.utilities.model_helpers import is_overridden


class ReleaseGradients(Callback):
    """Step each parameter in backward, as `release_gradients` does, in a Lightning Trainer.

    Pass it as `Trainer(callbacks=[ReleaseGradients()])`. `accumulate_grad_batches` works as without it.
    `gradient_clip_val` becomes the optimizer's `max_norm`, which clips by the norm of the step before.

    Raises:
        ValueError: at the start of training, for a setting that backward cannot follow: manual optimization, clipping
            by value or in `configure_gradient_clipping`, precision="16-mixed", several devices.
    """

    def __init__(self) -> None:
        self._handle: Release | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Hand accumulation and clipping to the optimizer, and release its gradients."""
        value, by_norm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm in (None, "norm")
        problems = {
            "automatic_optimization=False: call release_gradients and its accumulate() in the module": (
                not pl_module.automatic_optimization
            ),
            "gradient_clip_algorithm='value': backward clips the norm, 'norm'": bool(value) and not by_norm,
            "configure_gradient_clipping: leave it out, and set gradient_clip_val": is_overridden(
                "configure_gradient_clipping", pl_module
            ),
            "precision='16-mixed': the scaler unscales gradients that are gone. Use 'bf16-mixed' or 'bf16-true'": (
                getattr(trainer.precision_plugin, "scaler", None) is not None
            ),
            f"{trainer.world_size} devices: they reduce gradients after backward. Use one": trainer.world_size > 1,
        }
        found = [problem for problem, applies in problems.items() if applies]
        if found:
            raise ValueError(f"ReleaseGradients cannot step in backward with {'; '.join(found)}")
        (optimizer,) = trainer.optimizers  # automatic optimization has one
        if value and (optimizer.max_norm is None or optimizer.max_norm > value):
            optimizer.max_norm = float(value)
        loop = trainer.fit_loop
        self._handle = release_gradients(pl_module, optimizer, accumulating=loop._should_accumulate)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the release, so that steps come after backward again."""
        if self._handle is not None:
            self._handle.remove()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the release where training ends early."""
        self.on_train_end(trainer, pl_module)
