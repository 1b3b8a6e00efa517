from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adamas.bench.clock import Effort
from adamas.bench.row import Figures, Row, Side
from adamas.bench.scenario import Scenario, Work

ROOT = Path(__file__).parents[2]
BRIEF = Effort(rounds=5, threads=1, turn_seconds=1e-4)


def tiny(dtype: str = "float32", work: Work = "step") -> Scenario:
    """Sizes on both sides of a vector register, a scalar and a matrix."""
    return Scenario("tiny", ((3, 5), (), (33,), (1,)), dtype, work, {"torch-fused": 0.5})


def row(peer: str = "torch-fused", reason: str | None = None, ratio: float = 0.25) -> Row:
    """A finished row without measuring."""
    figures = Figures(Side(1e-4, 1.5, 8.0), Side(1e-4 / ratio, 2.5, 8.0), ratio, ratio / 2, ratio * 2, 1.1, 0.0)
    made = Row.of(tiny(), peer, {"torch": "2.0"}, reason)
    return made if reason else replace(made, figures=figures)


@pytest.fixture(scope="module", autouse=True)  # and no longer: other tests run what is installed
def processes_find_the_package() -> Iterator[None]:
    """Let measuring processes import the package as it is here, wherever pytest was started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'src'}")
        yield
