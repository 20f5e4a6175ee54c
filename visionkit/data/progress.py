"""A progress bar for what takes long, where a person can see it."""

from __future__ import annotations

import contextlib


@contextlib.contextmanager
def progress_bar(title: str, total: int, show: bool = True):
    """Yields a function to call once per item; shows nothing but on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not (show and console.is_terminal)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
