"""The shared trajectory must reject a front with a wrong rule: each planted bug fails it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from adamas.kernels import arrays, functional
from adamas.scalars import StepScalars
from tests.frameworks import trajectory
from tests.frameworks.test_numpy import run

Change = Callable[[StepScalars], StepScalars]
BUGS: dict[str, tuple[str, Change]] = {
    "betas swapped": ("plain", lambda s: s._replace(beta1_complement=s.beta2_complement, beta2=s.beta1)),
    "no bias correction": ("plain", lambda s: s._replace(step_size=trajectory.LR, eps=1e-8)),
    "eps before the correction": ("large-eps", lambda s: s._replace(eps=0.1)),
    "eps lost": ("large-eps", lambda s: s._replace(eps=0.0)),
    "no decay": ("decoupled", lambda s: s._replace(decay=0.0)),
    "decay in the gradient": ("decoupled", lambda s: s._replace(decay=0.0, l2=0.1)),
    "decay without lr": ("decoupled", lambda s: s._replace(decay=0.1)),
    "cautious everywhere": ("decoupled", lambda s: s._replace(cautious=True)),
    "maximized": ("plain", lambda s: s._replace(grad_factor=-1.0)),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_trajectory_rejects(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, change = BUGS[bug]
    right = functional.update

    def wrong(xp: Any, dtype: str, s: StepScalars, *others: Any) -> Any:
        return right(xp, dtype, change(s), *others)

    monkeypatch.setattr(arrays, "native", None)
    monkeypatch.setattr(functional, "update", wrong)
    with np.errstate(all="ignore"), pytest.raises(AssertionError, match="lr"):
        trajectory.check(run, trajectory.SHARED[case], "float32")
