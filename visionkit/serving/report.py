"""What the gate says about a SavedModel."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """One reason why a SavedModel would not serve.

    Attributes:
        op: The op, tensor or file at fault.
        function: The signature or graph function it stands in.
        problem: What is wrong.
        advice: What to do.
    """

    op: str
    function: str
    problem: str
    advice: str

    def __str__(self) -> str:
        return f"{self.op} in {self.function}: {self.problem}. {self.advice}"


@dataclasses.dataclass(frozen=True)
class GateReport:
    """All findings about one SavedModel.

    Attributes:
        folder: The folder that was checked.
        findings: Reasons against it; none of them is a warning.
        checks: Names of the checks that ran.
        skipped: Names of those that could not run here -> why.
    """

    folder: str
    findings: tuple[Finding, ...]
    checks: tuple[str, ...]
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the SavedModel may be published."""
        return not self.findings

    def print(self, console=None):
        """Print a table of the findings, or one line when there are none.

        Args:
            console: A `rich.console.Console`; default a new one on the terminal.
        """
        from rich.console import Console
        from rich.table import Table

        console = console or Console()
        for name, reason in self.skipped.items():
            console.print(f"{self.folder}: not checked, {name}: {reason}")
        if self.passed:
            console.print(f"{self.folder}: passed {', '.join(self.checks)}")
            return
        table = Table("op", "function", "problem", "what to do", title=self.folder)
        for finding in self.findings:
            table.add_row(*dataclasses.astuple(finding))
        console.print(table)


class ExportRefused(ValueError):
    """The gate found faults; nothing was published.

    Attributes:
        report: The `GateReport`.
    """

    def __init__(self, report: GateReport):
        self.report = report
        lines = "\n".join(f"  - {finding}" for finding in report.findings)
        super().__init__(f"The export was refused, nothing is published:\n{lines}")
