"""The figure that every plot is drawn on; importing this module loads matplotlib."""

from __future__ import annotations

import io

import matplotlib.figure

DPI = 150


class Figure(matplotlib.figure.Figure):
    """A white figure that a notebook shows by itself, without `pyplot`.

    Args:
        size: (width, height) in inches.
        layout: As matplotlib's; None leaves the axes where they are put.
    """

    def __init__(self, size, layout: str | None = "constrained"):
        super().__init__(size, DPI, facecolor="white", layout=layout)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()
