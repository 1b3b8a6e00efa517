"""The margin: the smallest difference that matters."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Margin:
    """The smallest difference that matters: a fraction of the metric, or an amount of it.

    Attributes:
        value: The fraction, as 0.02 for 2 %, or the amount in the metric's own unit.
        relative: Whether the value is a fraction.
    """

    value: float = 0.02
    relative: bool = True

    def __post_init__(self) -> None:
        """Refuse a margin that is not positive, or not below 100 %."""
        if not (self.value > 0 and math.isfinite(self.value)):
            raise ValueError(f"margin={self.value} must be a positive number, as in 2% or 0.002abs")
        if self.relative and self.value >= 1:
            raise ValueError(
                f"margin={self} must be below 100% of the metric; write {self.value:g} per cent as "
                f"{self.value:g}%, and an amount in the metric's own unit as {self.value:g}abs"
            )

    def __str__(self) -> str:
        """Return the margin as a user types it."""
        return f"{self.value * 100:g}%" if self.relative else f"{self.value:g}abs"

    @property
    def band(self) -> str:
        """The two ends of the margin as text; an amount is in the unit of the metric."""
        return f"±{self}".removesuffix("abs")

    @classmethod
    def parse(cls, text: str | float) -> Margin:
        """Read a margin: `2%` and `0.02` are relative, `0.002abs` is absolute.

        Example:
            >>> Margin.parse("2%") == Margin.parse("0.02"), Margin.parse("0.002abs").relative
            (True, False)
        """
        text = text if isinstance(text, str) else repr(float(text))
        match = re.fullmatch(r"(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*(%|abs)?", text.strip(), re.IGNORECASE)
        if not match:
            raise ValueError(f"margin={text!r} must be a positive number: relative as 2% or 0.02, absolute as 0.002abs")
        value, unit = float(match[1] + (match[2] or "")), match[3]
        return cls(value / 100 if unit == "%" else value, relative=unit in (None, "%"))
