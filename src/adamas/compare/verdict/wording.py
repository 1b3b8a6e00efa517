"""How verdicts are written in each language: their texts, the names of arms and metrics, and figures."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from adamas.compare.study.arms import Arm
from adamas.language import Language, Texts
from adamas.page import TEXTS

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"


@cache
def texts(lang: Language) -> Texts:
    """Return the texts of verdicts and of their page in a language."""
    return Texts(lang, Path(__file__).parents[1] / "texts", TEXTS)


ENGLISH = texts("en")


def title(arm: Arm, say: Texts = ENGLISH) -> str:
    """Return the name of an arm as it stands in a sentence; that of a torch optimizer is its class."""
    return say(f"arm.{arm.name}") if arm.built_in else arm.title


def words(metric: str, say: Texts = ENGLISH) -> str:
    """Return the name of a metric as it stands in a sentence."""
    if metric.startswith("-"):
        return say("word.negated", metric=words(metric[1:], say))
    return say("word.cross_entropy") if metric == "cross_entropy" else metric.replace("_", " ")


def counted(thing: str, count: int, say: Texts = ENGLISH) -> str:
    """Return a number of things in words, where the catalogue has the thing in the singular and in the plural.

    Example:
        >>> counted("run", 1), counted("run", 2)
        ('1 run', '2 runs')
    """
    plural = "es" if thing.endswith("s") else "s"
    return say(f"word.{thing if count == 1 else thing + plural}", count=count)


def show(value: float, relative: bool, sign: bool = False) -> str:
    """Return a difference as text, in per cent where it is relative, with a true minus sign.

    Example:
        >>> show(0.0123, relative=True, sign=True), show(0.00123, relative=False)
        ('+1.23%', '0.00123')
    """
    plus = "+" if sign else ""
    text = f"{value * 100:{plus}.2f}%" if relative else f"{value:{plus}.3g}"
    return text.replace("-", MINUS)


def figure(value: float, like: float | None = None) -> str:
    """Return a figure with four decimals, or with three digits where four decimals are too few or too many.

    Args:
        value: The figure.
        like: Another figure, which decides between the two forms in place of the first.

    Example:
        >>> figure(0.74379), figure(0.0), figure(1.234e-5), figure(1e30), figure(2e-5, like=0.7)
        ('0.7438', '0.0000', '1.23e-05', '1e+30', '0.0000')
    """
    size = abs(value if like is None else like)
    return f"{value:.4f}" if size == 0 or 5e-4 <= size < 1e6 else f"{value:.3g}"
