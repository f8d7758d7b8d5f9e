"""A share of items with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z = 1.959963984540054
"""Standard normal quantile of 97.5%, for 95% intervals."""


@dataclass(frozen=True, slots=True)
class Share:
    """``count`` of ``of`` items."""

    count: int
    of: int

    @property
    def value(self) -> float:
        """0 to 1; NaN of no items."""
        return self.count / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of Wilson (1927), which holds near 0 and 1 too; NaN of no items."""
        if not self.of:
            return math.nan, math.nan
        return wilson(self.value, self.of)

    def percent(self, *, interval: bool = True) -> str:
        """Such as ``12.0 [7.0, 19.8]``; a dash of no items."""
        if not self.of:
            return "-"
        if not interval:
            return f"{100 * self.value:.1f}"
        low, high = self.interval
        return f"{100 * self.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"

    def to_json(self) -> dict[str, float | int | None]:
        """Count, total, value and interval; None of no items."""
        low, high = self.interval
        numbers = {"value": self.value, "low": low, "high": high}
        return {
            "count": self.count,
            "of": self.of,
            **{name: None if math.isnan(number) else round(number, 6) for name, number in numbers.items()},
        }


def wilson(share: float, items: float) -> tuple[float, float]:
    """95% interval of a share that was seen on so many items (Wilson 1927, equation 5)."""
    middle = (share + Z**2 / (2 * items)) / (1 + Z**2 / items)
    half = Z / (1 + Z**2 / items) * math.sqrt(share * (1 - share) / items + Z**2 / (4 * items**2))
    # Rounding would leave the ends of 0 and 1 a little beside them.
    return (middle - half if share > 0 else 0.0), (middle + half if share < 1 else 1.0)
