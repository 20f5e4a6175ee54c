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

from benchmarks.goals import FEWEST_ROUNDS, Goal, ratio_of_medians
from benchmarks.peers import MissingPeer
from benchmarks.probe import measure_machine, quiet_rounds
from benchmarks.profiles import profile

ROUNDS = 7
SECONDS = 80.0  # for the rounds of one comparison
SHORTEST = 0.05  # seconds of one measurement; a faster function is repeated


class UnequalWork(Exception):
    """The two sides do not do the same; their times are not compared."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One of those compared.

    Args:
        name: In the table.
        run: What is timed.
        before: What has to be done before each time, untimed.
        work: Amount of work in one run, in a unit of the comparison.
        after: What has to be done after each time, untimed, so that nothing of it goes
            on while others have their turn.
        explain: Gives the lines of Markdown that say where its time goes; by default
            `run` is profiled in this process.
    """

    name: str
    run: Callable[[], object]
    before: Callable[[], object] | None = None
    work: float = 1.0
    after: Callable[[], object] | None = None
    explain: Callable[[], list[str]] | None = None


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
        also: str = "",
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
                time per unit; "" for the time of a run, whatever its work.
            also: A second unit, in which the same times are rows once more.
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
        missed = {}
        for each in [unit, also] if also else [unit]:
            if not peers:
                shown = describe(kept[ours.name], ours, each)
                self._add(what, shown, "-", "-", "-", "-", "-", rounds)
            for peer in peers:
                goal = (goals or {}).get(peer.name)
                if not self._compared(what, ours, peer, kept, goal, each, rounds):
                    missed[peer.name] = peer
        if missed:
            self.profiles += [f"## {self.name}: {what}", ""]
            for side in (ours, *missed.values()):
                self.profiles += profile(side)
        return kept

    def _compared(self, what, ours, peer, kept, goal, unit, rounds) -> bool:
        """A row for one peer; whether there is no goal that it misses."""
        pair = [kept[s.name] / (s.work if unit else 1.0) for s in (ours, peer)]
        if goal.at_least if goal else unit == "img":
            pair.reverse()  # a ratio of speeds
        ratio = ratio_of_medians(*pair)
        verdict = goal.verdict(ratio) if goal else "-"
        shown = [describe(kept[side.name], side, unit) for side in (ours, peer)]
        texts = shown[0], peer.name, shown[1], str(ratio), str(goal or "-")
        self._add(what, *texts, verdict, rounds)
        return not verdict.lower().startswith("not")

    def limit(
        self,
        what: str,
        value: float,
        limit: float,
        unit: str,
        than: str = "-",
        explain: Callable[[], list[str]] | None = None,
    ) -> None:
        """A row for a figure that is no ratio: at most `limit`.

        Args:
            what: In the table.
            value: The figure.
            limit: The most that it shall be.
            unit: Of both.
            than: Whose figure the limit is, or is above.
            explain: As for `Side`.
        """
        goal, shown = f"≤ {limit:,.4g} {unit}", f"{value:,.4g} {unit}"
        self._figure((what, shown, than, "-", "-", goal), value <= limit, explain)

    def share(
        self,
        what: str,
        value: float,
        peer: str,
        theirs: float,
        limit: float,
        unit: str,
        explain: Callable[[], list[str]] | None = None,
    ) -> None:
        """A row for a ratio of two figures that are no times, each taken once.

        Args:
            what: In the table.
            value: Our figure.
            peer: Whose figure it is compared with.
            theirs: That one.
            limit: The most that the ratio shall be.
            unit: Of both figures.
            explain: As for `Side`.
        """
        shown = [f"{figure:,.4g} {unit}" for figure in (value, theirs)]
        texts = what, shown[0], peer, shown[1], f"{value / theirs:.3f}"
        goal = f"≤ {limit:g} of its {unit}"
        self._figure((*texts, goal), value <= limit * theirs, explain)

    def _figure(self, texts, reached: bool, explain) -> None:
        self._add(*texts, "reached" if reached else "NOT REACHED")
        if explain and not reached:
            self.profiles += [f"## {self.name}: {texts[0]}", "", *explain()]

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


def describe(times, side: Side, unit: str) -> str:
    """The median with the best and the distance of the quartiles, for the table."""
    work = side.work if unit else 1.0
    if unit == "img":
        times, form = work / times, "{:.4g} img/s"
        best = times.max()
    else:
        times = times / work
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
    seconds = (time.perf_counter() - start) / repeats
    if side.after:
        side.after()
    return seconds
