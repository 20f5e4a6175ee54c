"""YAML that is not trusted: no aliases, no tags, no key twice, little nesting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from visionkit.data.sources.files import read_text, repeated

MAX_BYTES = 2**20
"""Largest file that is read."""

MAX_DEPTH = 20
"""Lists and tables within each other."""


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Too large or too deep, no YAML, or with aliases, tags of Python or
            a key twice; names the file and the line.
    """
    text = read_text(path, MAX_BYTES)
    try:
        return yaml.load(text, Loader=StrictLoader)
    except (
        yaml.YAMLError,
        AttributeError,  # of a value that does not fit its tag
        OverflowError,
        ValueError,
    ) as error:
        raise ValueError(f"{path} is no YAML: {error}.") from None


class StrictLoader(yaml.SafeLoader):
    """Refuses what grows while it is read, and what would lose half of a table."""

    _depth = 0

    def compose_node(self, parent, index):
        """As of PyYAML, but for aliases and deep nesting."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            _refuse("it has aliases (`*name`), which can grow without bound", event)
        if self._depth > MAX_DEPTH:
            _refuse(f"it is nested more than {MAX_DEPTH} deep", event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node, deep=False):
        """As of PyYAML, but for keys that stand twice."""
        keys = [key.value for key, _ in node.value if key.id == "scalar"]
        for key in repeated(keys):
            _refuse(f"the key {key!r} stands twice", node)
        return super().construct_mapping(node, deep)


def _refuse(text: str, where) -> None:
    raise yaml.MarkedYAMLError(problem=text, problem_mark=where.start_mark)
