"""How figures and metrics are written, on the terminal and on the page."""

from __future__ import annotations

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"


def words(metric: str) -> str:
    """Return the name of a metric as it stands in a sentence."""
    if metric.startswith("-"):
        return f"negated {words(metric[1:])}"
    return "cross-entropy" if metric == "cross_entropy" else metric.replace("_", " ")


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
