"""Run claims one after the other. A claim that fails is told in words, and the others go on."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from adamas.language import Language
from adamas.understand.claims.claim import Claim, Estimate, Told, Verdict, say_in


@dataclass(frozen=True)
class Measured:
    """A claim with its verdict, its figure, its words and picture, and the seconds of one processor that it took."""

    claim: Claim
    verdict: Verdict
    figure: Estimate
    told: Told
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the claim as an entry of the command's JSON."""
        return {
            "number": self.claim.number,
            "source": self.claim.source,
            "article_zh": self.claim.article_zh,
            "article_en": self.claim.article_en,
            "verdict": self.verdict,
            "value": self.figure.value,
            "low": self.figure.low,
            "high": self.figure.high,
            "text": self.told.text,
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True)
class Failure:
    """A claim that could not be measured, and why."""

    claim: Claim
    reason: str


def measure(claim: Claim, lang: Language) -> Measured | Failure:
    """Run the experiment of a claim and judge its figures.

    Args:
        claim: The claim.
        lang: The language of the words.
    """
    started = time.process_time()
    try:
        with _one_thread():
            found = claim.measure()
        figure, verdict, told = found.figure, claim.judge(found), claim.tell(found, say_in(lang))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        return Failure(claim, f"it needs {package}, which is not installed: pip install 'adamas[compare]'")
    except Exception as error:  # one broken experiment must not lose the others
        return Failure(claim, f"{type(error).__name__}: {error}")
    if not all(map(math.isfinite, (figure.value, figure.low, figure.high))):
        return Failure(claim, f"its figure is {figure}, which must be finite: a run diverged")
    return Measured(claim, verdict, figure, told, time.process_time() - started)


@contextlib.contextmanager
def _one_thread() -> Generator[None]:
    """Let torch compute on one thread while the block runs: sums then have one order, and figures are the same."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def to_json(found: list[Measured]) -> dict[str, Any]:
    """Return the command's JSON; it is a contract, and holds the claims that were measured."""
    return {"schema": 1, "claims": [each.to_json() for each in found]}
