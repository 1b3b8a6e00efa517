"""How figures and metrics are written, on the terminal and on the page."""

from __future__ import annotations

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"


def words(metric: str) -> str:
    """A metric's name as a sentence has it.

    Example:
        >>> words("cross_entropy")
        'cross-entropy'
    """
    return {"cross_entropy": "cross-entropy"}.get(metric, metric.replace("_", " "))


def show(value: float, relative: bool, sign: bool = False) -> str:
    """A difference: in per cent where relative, with a true minus sign.

    Example:
        >>> show(0.0123, relative=True, sign=True), show(0.00123, relative=False)
        ('+1.23 %', '0.00123')
    """
    plus = "+" if sign else ""
    text = f"{value * 100:{plus}.2f} %" if relative else f"{value:{plus}.3g}"
    return text.replace("-", MINUS)
