"""What the dataset doctor found, for a person and for a machine."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

LEVELS = ("error", "warning", "note")
_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_SHOWN = 5  # names per finding
_SHOWN_CLASSES = 20


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that a rule found.

    Attributes:
        level: "error" (mend it before training), "warning" (look at it) or "note".
        rule: Dotted name of the rule, e.g. "leak.exact".
        names: The files or records it concerns.
        message: What was found and what to do.
        records: The records it concerns, where they can be shown.
    """

    level: str
    rule: str
    names: tuple[str, ...]
    message: str
    records: tuple[int, ...] = ()


@dataclasses.dataclass
class CheckReport:
    """The findings on a split, or on two splits together.

    Attributes:
        name: E.g. "train".
        findings: Errors first.
        counts: Plain numbers: `read` = `used` + the sum of `skipped` by rule,
            `notes`, `formats`, `height` and `width` (upright, in pixels), `classes`
            (images of each, or boxes, or pixels) and `imbalance`; with boxes `boxes`,
            `boxes_per_image` and `box_side` (square root of the area, in pixels);
            with masks `masks_read`, `pixels` and the share of `void` in them, or for
            instances `mask_area` (in pixels).
    """

    name: str
    findings: list[Finding]
    counts: dict[str, Any]

    def __post_init__(self):
        self.findings.sort(key=lambda finding: LEVELS.index(finding.level))

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings are allowed."""
        return all(finding.level != "error" for finding in self.findings)

    @property
    def urgent(self) -> list[Finding]:
        """The errors and warnings."""
        return [finding for finding in self.findings if finding.level != "note"]

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain types; `json.dumps` takes names that are not UTF-8."""
        findings = [dataclasses.asdict(finding) for finding in self.findings]
        lists = ("names", "records")
        return {
            "name": self.name,
            "ok": self.ok,
            "counts": self.counts,
            "findings": [f | {key: list(f[key]) for key in lists} for f in findings],
        }

    def print_urgent(self, console) -> None:
        """Prints only the errors and warnings, without tables."""
        for finding in self.urgent:
            console.print(_finding_text(finding))

    def print(self, console=None) -> None:
        """Prints tables to a `rich.console.Console` (default: the terminal)."""
        from rich.console import Console

        console = console or Console()
        console.print(self._counts_table())
        if self.counts.get("classes"):
            console.print(self._class_table())
        for finding in self.findings:
            console.print(_finding_text(finding))
        if not self.findings:
            console.print(f"{self.name}: nothing found", style="green")

    def _counts_table(self):
        from rich.table import Table

        table = Table(title=f"Data check: {self.name}", title_justify="left")
        table.add_column("count")
        table.add_column("value", justify="right")
        for key, value in self.counts.items():
            if key == "classes":
                continue
            if isinstance(value, dict):
                value = ", ".join(f"{k} {v}" for k, v in value.items()) or "0"
            table.add_row(key, str(value))
        return table

    def _class_table(self):
        from rich.table import Table

        classes = sorted(self.counts["classes"].items(), key=lambda item: -item[1])
        most = max(classes[0][1], 1)
        units = (unit for unit in ("boxes", "pixels") if unit in self.counts)
        unit = next(units, "images")
        table = Table("class", unit, "", title_justify="left")
        for name, count in classes[:_SHOWN_CLASSES]:
            table.add_row(_text(name), str(count), "█" * round(30 * count / most))
        if len(classes) > _SHOWN_CLASSES:
            rest = classes[_SHOWN_CLASSES:]
            counts = f"{rest[-1][1]} to {rest[0][1]}"
            table.add_row(_text(f"... {len(rest)} more"), counts, "")
        return table


def extremes(values: np.ndarray) -> dict[str, float]:
    """The least, the middle and the largest of some numbers, to a tenth."""
    ends = {"min": values.min(), "median": np.median(values), "max": values.max()}
    return {name: round(float(value), 1) for name, value in ends.items()}


def printable(name: str) -> str:
    """The name with what no terminal can show (control characters, bytes that are not
    UTF-8) as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in name
    )


def _text(name: str):
    from rich.text import Text

    return Text(printable(name))  # `Text` is not searched for markup


def _finding_text(finding: Finding):
    from rich.text import Text

    text = Text(f"{finding.level:8}", style=_STYLES[finding.level])
    text.append(f"{finding.rule}: ", style="bold")
    text.append(printable(finding.message), style="default")
    for name in finding.names[:_SHOWN]:
        text.append(f"\n          {printable(name)}", style="dim")
    if len(finding.names) > _SHOWN:
        text.append(f"\n          ... {len(finding.names) - _SHOWN} more", style="dim")
    return text
