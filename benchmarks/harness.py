"""Both sides of a comparison in one run, and the ratio of their medians.

    def boxes(bench):
        bench.compare(
            "assignment of 20 boxes",
            Side("visionkit", ours),
            bench.peers({"keras_cv": build_theirs}),
            {"keras_cv": at_most(0.8)},
        )

Rounds go A B A B. Before each the machine is probed; a round that begins in a slow
moment does not count. What is gated is the ratio, with its interval, never a time.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks.peers import MissingPeer
from benchmarks.probe import measure_machine, quiet_rounds
from benchmarks.profiles import profile

ROUNDS = 7
FEWEST_ROUNDS = 3
"""Of a comparison that would take longer than its time; the table says how many."""

SECONDS = 80.0  # for the rounds of one comparison
SHORTEST = 0.05  # seconds of one measurement; a faster function is repeated
RESAMPLES = 2000


class UnequalWork(Exception):
    """The two sides do not do the same; their times are not compared."""


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

    def verdict(self, ratio: float, low: float, high: float) -> str:
        """In words, for a ratio and its interval."""
        sign = -1 if self.at_least else 1
        ends = sorted((sign * low, sign * high))
        if sign * ratio > sign * self.limit:
            return "NOT REACHED" if ends[0] > sign * self.limit else "not reached, open"
        return "reached" if ends[1] <= sign * self.limit else "reached, open"


def at_most(limit: float) -> Goal:
    """A share of the peer's time."""
    return Goal(limit)


def at_least(limit: float) -> Goal:
    """A share of the peer's speed."""
    return Goal(limit, at_least=True)


@dataclasses.dataclass(frozen=True)
class Side:
    """One of those compared.

    Args:
        name: In the table.
        run: What is timed.
        before: What has to be done before each time, untimed.
        work: Amount of work in one run, in the `unit` of the comparison.
    """

    name: str
    run: Callable[[], object]
    before: Callable[[], object] | None = None
    work: float = 1.0


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table, ready to print."""

    bench: str
    what: str
    ours: str
    peer: str
    theirs: str
    ratio: str
    goal: str
    verdict: str
    rounds: str = ""


class Bench:
    """What a benchmark is given, and where its results go.

    Args:
        name: In the registry.
        rounds: Of each comparison.
        quick: To try whether it runs at all: the sizes are cut, and the numbers say
            nothing.

    Attributes:
        rows: `Row`s so far.
        notes: Sentences below the table.
        profiles: Lines of Markdown on the ratios that were not reached.
    """

    def __init__(self, name: str, rounds: int = ROUNDS, quick: bool = False):
        self.name, self.rounds, self.quick = name, rounds, quick
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.profiles: list[str] = []

    def note(self, text: str) -> None:
        """A sentence below the table."""
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)
        self.notes.append(text)

    def require_equal(self, what: str, ours, theirs, tolerance: float = 0.0) -> None:
        """Refuse to compare what does not do the same work.

        Raises:
            UnequalWork: The arrays differ by more than `tolerance`.
        """
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        if ours.shape == theirs.shape:
            difference = np.abs(ours.astype(float) - theirs).max(initial=0)
            if difference <= tolerance:
                return
            detail = f"by {difference:g}, and {tolerance:g} is allowed"
        else:
            detail = f"{ours.shape} and {theirs.shape}"
        raise UnequalWork(f"{what} differ: {detail}")

    def peers(self, builders: dict[str, Callable[[], Side]]) -> list[Side]:
        """The peers that are there; the others are named as skipped, loudly."""
        found = []
        for name, build in builders.items():
            try:
                found.append(build())
            except MissingPeer as error:
                self.skip(name, str(error))
        return found

    def skip(self, peer: str, reason: str) -> None:
        """Say that a peer is not compared with, and why."""
        print(f"SKIPPED: {self.name}, {peer}: {reason}", file=sys.stderr, flush=True)
        self._add("", "", peer, "", "", "", "SKIPPED")
        self.notes.append(f"{peer} was skipped: {reason}")

    def compare(
        self,
        what: str,
        ours: Side,
        peers: list[Side],
        goals: dict[str, Goal] | None = None,
        *,
        unit: str = "",
        warm_ups: int = 2,
        seconds: float = SECONDS,
    ) -> dict[str, np.ndarray]:
        """Time all sides in turn; a row for each peer.

        Args:
            what: In the table.
            ours: The first side.
            peers: The others.
            goals: By a peer's name; one without is printed only, images as a ratio of
                speeds.
            unit: Of the sides' `work`: "img" for images per second, another one for
                time per unit.
            warm_ups: Runs of each side before the first round.
            seconds: After which there are no more rounds than `FEWEST_ROUNDS`.

        Returns:
            Name of a side -> seconds of one run, (rounds that count,).
        """
        sides = [ours, *peers]
        repeats = [_warm_up(side, warm_ups) for side in sides]
        times, quiet = self._rounds(sides, repeats, seconds)
        rounds = f"{quiet.sum()} of {len(quiet)}"
        kept = {side.name: times[quiet, i] for i, side in enumerate(sides)}
        shown = {side.name: describe(kept[side.name], side, unit) for side in sides}
        missed = []
        for peer in peers or [ours]:
            goal = (goals or {}).get(peer.name)
            pair = kept[ours.name] / ours.work, kept[peer.name] / peer.work
            if goal.at_least if goal else unit == "img":
                pair = pair[1], pair[0]  # a ratio of speeds
            ratio, low, high = ratio_of_medians(*pair)
            alone = peer is ours
            verdict = goal.verdict(ratio, low, high) if goal else "-"
            if verdict.lower().startswith("not"):
                missed.append(peer)
            self._add(
                what,
                shown[ours.name],
                "-" if alone else peer.name,
                "-" if alone else shown[peer.name],
                "-" if alone else f"{ratio:.3f} [{low:.3f}, {high:.3f}]",
                str(goal or "-"),
                verdict,
                rounds,
            )
        if missed:
            self._explain(what, [ours, *missed])
        return kept

    def _explain(self, what: str, sides: list[Side]) -> None:
        self.profiles += [f"## {self.name}: {what}", ""]
        for side in sides:
            self.profiles += profile(side)

    def limit(
        self, what: str, value: float, limit: float, unit: str, than: str = "-"
    ) -> None:
        """A row for a figure that is no ratio of times: at most `limit`."""
        verdict = "reached" if value <= limit else "NOT REACHED"
        goal = f"≤ {limit:,.4g} {unit}"
        self._add(what, f"{value:,.4g} {unit}", than, "-", "-", goal, verdict)

    def _add(self, what, ours, peer, theirs, ratio, goal, verdict, rounds=""):
        row = Row(self.name, what, ours, peer, theirs, ratio, goal, verdict, rounds)
        self.rows.append(row)
        print(" | ".join(dataclasses.astuple(row)), file=sys.stderr, flush=True)

    def _rounds(self, sides, repeats, seconds):
        """(R, sides) seconds of one run each, and (R,) bool which rounds count."""
        begin, times, probes = time.perf_counter(), [], []
        fewest = min(self.rounds, FEWEST_ROUNDS)
        while True:
            quiet = quiet_rounds(probes) if probes else np.zeros(0, bool)
            late = time.perf_counter() - begin > seconds
            enough = quiet.sum() >= (fewest if late else self.rounds)
            # Where no moment is quiet, the median of what there is has to do.
            if enough or len(times) >= 2 * self.rounds:
                return np.array(times), quiet
            probes.append(measure_machine())
            pairs = zip(sides, repeats, strict=True)
            times.append([_measure(side, count) for side, count in pairs])


def ratio_of_medians(ours, theirs) -> tuple[float, float, float]:
    """The ratio, and its 95 % interval by bootstrap over the rounds.

    Args:
        ours: (R,) seconds.
        theirs: (R,) seconds of the same rounds: a slow one slows both down.
    """
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    drawn = np.random.default_rng(0).integers(0, len(ours), (RESAMPLES, len(ours)))
    ratios = np.median(ours[drawn], axis=1) / np.median(theirs[drawn], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(np.median(ours) / np.median(theirs)), float(low), float(high)


def describe(times, side: Side, unit: str) -> str:
    """The median with the best and the distance of the quartiles, for the table."""
    if unit == "img":
        times, form = side.work / times, "{:.4g} img/s"
        best = times.max()
    else:
        times = times / side.work
        short = np.median(times) < 1
        times, best = (1000 * times if short else times), None
        form = f"{{:.4g}} {'ms' if short else 's'}{f'/{unit}' if unit else ''}"
        best = times.min()
    spread = np.subtract(*np.percentile(times, [75, 25]))
    text = form.format(np.median(times))
    return f"{text} (best {best:.4g}, quartiles {spread:.2g} apart)"


def _warm_up(side: Side, warm_ups: int) -> int:
    """How often the side has to run for one measurement."""
    for _ in range(warm_ups):
        seconds = _measure(side, 1)
    if not warm_ups or side.before:
        return 1
    return max(1, round(SHORTEST / max(seconds, 1e-6)))


def _measure(side: Side, repeats: int) -> float:
    """Seconds of one run."""
    if side.before:
        side.before()
    start = time.perf_counter()
    for _ in range(repeats):
        side.run()
    return (time.perf_counter() - start) / repeats
