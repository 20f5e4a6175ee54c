"""The ratio of two sides' times, how sure it is, and what it shall reach."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

ENOUGH_ROUNDS = 6
"""With fewer, resampling says nothing: the range of the rounds' ratios is given."""

FEWEST_ROUNDS = 3
"""Of a comparison that would take longer than its time; fewer decide nothing."""

FAR = 1.5  # by what factor a range of few rounds has to be on one side of a limit
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Of medians over the rounds.

    Args:
        value: The ratio.
        low: The lower end of its interval.
        high: The upper end.
        rounds: How many there were.
    """

    value: float
    low: float
    high: float
    rounds: int

    @property
    def of_few_rounds(self) -> bool:
        """Whether the interval is only the range of what was seen."""
        return self.rounds < ENOUGH_ROUNDS

    def __str__(self):
        ends = f"{self.low:.3f}, {self.high:.3f}"
        if self.of_few_rounds:
            ends = f"min..max {self.low:.3f}..{self.high:.3f}"
        return f"{self.value:.3f} [{ends}]"


@dataclasses.dataclass(frozen=True)
class Goal:
    """What a ratio shall reach.

    Args:
        limit: The number.
        at_least: Whether the ratio is of speeds, ours to the peer's, and to be at least
            the limit; otherwise of times, and to be at most that.
    """

    limit: float
    at_least: bool = False

    def __str__(self):
        kind = "≥ {:g} of its speed" if self.at_least else "≤ {:g} of its time"
        return kind.format(self.limit)

    def verdict(self, ratio: Ratio) -> str:
        """In words; "open" where the other one is possible too."""
        margin = FAR if ratio.of_few_rounds else 1.0
        if ratio.rounds < FEWEST_ROUNDS:
            margin = math.inf
        sign = -1 if self.at_least else 1
        limit = sign * self.limit
        ends = sorted((sign * ratio.low / margin, sign * ratio.high * margin))
        if sign * ratio.value > limit:
            return "NOT REACHED" if ends[0] > limit else "not reached, open"
        return "reached" if ends[1] <= limit else "reached, open"


def at_most(limit: float) -> Goal:
    """A share of the peer's time."""
    return Goal(limit)


def at_least(limit: float) -> Goal:
    """A share of the peer's speed."""
    return Goal(limit, at_least=True)


def ratio_of_medians(ours, theirs) -> Ratio:
    """The ratio and its interval.

    That is the 95 % interval by bootstrap over the rounds; with few of them the least
    and the largest ratio of a round.

    Args:
        ours: (R,) seconds.
        theirs: (R,) seconds of the same rounds: a slow one slows both down.
    """
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    value, rounds = float(np.median(ours) / np.median(theirs)), len(ours)
    if rounds < ENOUGH_ROUNDS:
        each = ours / theirs
        return Ratio(value, float(each.min()), float(each.max()), rounds)
    drawn = np.random.default_rng(0).integers(0, rounds, (RESAMPLES, rounds))
    ratios = np.median(ours[drawn], axis=1) / np.median(theirs[drawn], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Ratio(value, float(low), float(high), rounds)
