"""Step in the backward of the Trainer of transformers, with its accumulation and its clipping."""

from __future__ import annotations

import math
from typing import Any

from adamas.extras import needs
from adamas.torch.release import Release, release_gradients
from adamas.torch.wrappers import unwrapped

with needs("transformers", "accelerate", extra="dev"):
    from transformers import TrainerCallback


class ReleaseGradients(TrainerCallback):
    """Step each parameter in backward, as `release_gradients` does, in the Trainer of transformers and TRL.

    Pass it as `Trainer(callbacks=[ReleaseGradients()], ...)`. `gradient_accumulation_steps` works as without it.
    `max_grad_norm` becomes the optimizer's `max_norm`, which clips by the norm of the step before. The Trainer logs
    the norm that the optimizer measures.

    Raises:
        ValueError: at the start of training with fp16=True, because the scaler unscales gradients that are gone.
    """

    def __init__(self) -> None:
        self._handle: Release | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hand accumulation and clipping to the optimizer, and release its gradients."""
        if args.fp16:
            raise ValueError("ReleaseGradients with fp16=True: the scaler unscales gradients that are gone. Use bf16")
        self._end()  # of a training that did not reach its end
        wrapper = kwargs["optimizer"]
        optimizer, limit = unwrapped(wrapper), args.max_grad_norm or math.inf  # infinite, because the norm is logged
        if optimizer.max_norm is None or optimizer.max_norm > limit:
            optimizer.max_norm = limit
        self._handle = release_gradients(kwargs["model"], wrapper)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the release, so that steps come after backward again."""
        self._end()

    def _end(self) -> None:
        if self._handle is not None:
            self._handle.remove()
