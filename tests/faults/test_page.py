"""The page of faults names tests that are there."""

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reliability.md"


@functools.cache
def functions(file):
    return {getattr(node, "name", None) for node in ast.parse(file.read_text()).body}


def test_every_test_that_the_page_names_is_there():
    file, count = None, 0
    for path, name in re.findall(r"`([\w/]+\.py)?(?:::(\w+))?`", PAGE.read_text()):
        if not path and not name:
            continue
        file = ROOT / path if path else file
        assert not name or name in functions(file), f"{file.name}::{name}"
        count += 1
    assert count > 50
