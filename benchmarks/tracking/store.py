"""What a storage format is to the experiment: a function from moments to what is left of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Moments = NDArray[np.float32]  # one-dimensional

# store(m, v, step) -> (m, v): what survives being stored once and read again. `step` chooses the random bits, where
# there are any; the same step and moments give the same result.
Store = Callable[[Moments, Moments, int], tuple[Moments, Moments]]


@dataclass(frozen=True)
class Scheme:
    """A way to store both moments.

    Attributes:
        label: its name in figures and tables.
        layout: what is stored, in a few words.
        rounding: "none", "nearest" or "unbiased".
        bytes: a parameter, both moments and their scales.
        source: where the facts are from.
        store: the model.
    """

    label: str
    layout: str
    rounding: str
    bytes: float
    source: str
    store: Store
