"""What a run read, used and left out, and when that is too much."""

from __future__ import annotations

import os
import re
import threading

from visionkit.data.headers import inspect_image
from visionkit.data.image_header import BadImage
from visionkit.data.mask_codes import MaskCode, encoded_mask
from visionkit.data.sources.base import Source

MAX_BAD = 0.01
"""Share of the records that may be unreadable before it is an error."""

LISTED = 20  # files that an error names; the report has all of them


class DataReport:
    """Counts the records of one source and names those that cannot be read.

    `read == used + sum(len(files) for files in skipped.values())` always holds. Safe
    to use from several threads.

    Args:
        source: The source that the run reads; the report is about its `origin`.
        max_bad: Largest share of its records that may be unreadable.

    Attributes:
        bad: Record index -> (rule, name, detail), as found while reading.
    """

    def __init__(self, source: Source, max_bad: float = MAX_BAD):
        if not 0 <= max_bad <= 1:
            raise ValueError(
                f"`max_bad` must be a share in [0, 1]. Received: max_bad={max_bad}"
            )
        self.source = source.origin
        self.max_bad = max_bad
        self.bad: dict[int, tuple[str, str, str]] = {}
        self._notes: dict[str, set[int] | int] = {}
        self._lock = threading.Lock()

    @property
    def read(self) -> int:
        """Records of the source and files that its listing left out."""
        return len(self.source) + len(self.source.skipped)

    @property
    def used(self) -> int:
        """Records that are used, as far as they have been read."""
        return len(self.source) - len(self.bad)

    @property
    def bad_indices(self) -> list[int]:
        """Indices of the records found unreadable, ascending."""
        with self._lock:
            return sorted(self.bad)

    @property
    def skipped(self) -> dict[str, list[tuple[str, str]]]:
        """Rule -> (name, detail) of each file and record that is not used."""
        skipped: dict[str, list[tuple[str, str]]] = {}
        for skip in self.source.skipped:
            skipped.setdefault(skip.rule, []).append((skip.name, skip.detail))
        with self._lock:
            bad = sorted(self.bad.items())
        for _, (rule, name, detail) in bad:
            skipped.setdefault(rule, []).append((name, detail))
        return skipped

    @property
    def notes(self) -> dict[str, int]:
        """Rule -> number of records or objects that are used, but not as they are."""
        with self._lock:
            return {
                rule: found if isinstance(found, int) else len(found)
                for rule, found in sorted(self._notes.items())
            }

    def note(self, rule: str, index: int) -> None:
        """Remembers that the record `index` is used, but not as it is."""
        with self._lock:
            self._notes.setdefault(rule, set()).add(int(index))

    def note_count(self, rule: str, count: int) -> None:
        """Sets how many objects were changed by `rule`; 0 forgets the rule."""
        with self._lock:
            self._notes.pop(rule, None)
            if count:
                self._notes[rule] = int(count)

    def add_bad(self, index: int, rule: str, detail: str) -> None:
        """Counts the record `index` as unreadable.

        Raises:
            ValueError: More than `max_bad` of the records are; names up to 20.
        """
        name = self.source.record_name(index)
        with self._lock:
            self.bad[int(index)] = (rule, name, detail)
        self.check()

    def take_scan(self, bad: dict[int, tuple[str, str]], notes) -> None:
        """Takes over what a look at all headers found, before anything is decoded.

        Args:
            bad: Record index -> (rule, detail).
            notes: Rule -> indices of the records it holds for.

        Raises:
            ValueError: As for `add_bad`.
        """
        named = {
            index: (r, self.source.record_name(index), d)
            for index, (r, d) in bad.items()
        }
        with self._lock:
            self.bad |= named
        for rule, indices in notes.items():
            for index in indices:
                self.note(rule, index)
        self.check()

    def check(self) -> None:
        """Raises the error of `add_bad` if the limit is passed."""
        with self._lock:
            bad = sorted(self.bad.values())
        if len(bad) <= self.max_bad * len(self.source):
            return
        lines = [f"  {name}: {rule}: {detail}" for rule, name, detail in bad[:LISTED]]
        if len(bad) > LISTED:
            lines.append(f"  … and {len(bad) - LISTED} more")
        raise ValueError(
            f"{len(bad)} of {len(self.source)} records cannot be read, more than "
            f"`max_bad` = {self.max_bad:.2%} allows:\n" + "\n".join(lines) + "\n"
            "Repair, convert or remove these files, or raise `max_bad`."
        )

    def to_dict(self) -> dict:
        """A JSON-ready dict with all counts and the names of what is not used."""
        with self._lock:
            bad = [[index, *what] for index, what in sorted(self.bad.items())]
        return {
            "read": self.read,
            "used": self.used,
            "skipped": {
                rule: [list(item) for item in items]
                for rule, items in self.skipped.items()
            },
            "notes": self.notes,
            "state": {"records": len(self.source), "bad": bad},
        }

    def restore(self, report: dict) -> None:
        """Takes over what `to_dict` of an earlier part of the same run said.

        Raises:
            ValueError: It was about a source of another size.
        """
        state = report["state"]
        if state["records"] != len(self.source):
            raise ValueError(
                "The report is about other data: expected a source of "
                f"{state['records']} records. Received: {len(self.source)} records"
            )
        with self._lock:
            self.bad = {index: tuple(what) for index, *what in state["bad"]}


def diagnose(
    record, error: str = "", mask_code: MaskCode | None = None
) -> tuple[str, str]:
    """Why a record cannot be read, as (rule, detail).

    Args:
        record: A `Record`.
        error: What the decoder said; used where the files themselves are sound.
        mask_code: The source's, to find the values of a mask that no class has.
    """
    image = record.get("encoded")
    try:
        inspect_image(os.fsdecode(record["path"]) if image is None else image)
    except BadImage as bad:
        return bad.rule, bad.detail
    rule, detail = _rule_in(error)
    try:
        if mask_code and ("mask_path" in record or "mask_encoded" in record):
            mask_code.decode(encoded_mask(record))
    except BadImage as bad:
        rule, detail = bad.rule, bad.detail
    if rule.startswith("mask.") and "mask_path" in record:
        detail = f"{os.fsdecode(record['mask_path'])}: {detail}"
    return rule, detail


def _rule_in(error: str) -> tuple[str, str]:
    """The rule that an assertion of the graph names, or image.corrupt."""
    found = re.search(r"((?:image|mask)\.\w+): (.*)", error)
    if found:
        return found[1], re.sub(r"[\[\]{}]", "", found[2].split("[Op:")[0]).strip()
    return "image.corrupt", error or "its pixels cannot be decoded"
