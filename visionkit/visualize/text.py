"""Text for pictures: any name becomes something the font can draw."""

from __future__ import annotations

import bisect
import functools
import os
import unicodedata
from collections.abc import Sequence

REPLACEMENT = "\ufffd"


@functools.cache
def _font_file() -> str:
    """DejaVu Sans (Latin, Greek, Cyrillic, Arabic ...), which matplotlib ships."""
    import matplotlib

    return os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@functools.cache
def _drawable() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_font_file()).get_charmap())


@functools.lru_cache(maxsize=64)
def font(size: int):
    """DejaVu Sans as a Pillow font of `size` pixels."""
    from PIL import ImageFont

    return ImageFont.truetype(_font_file(), size)


def printable(text) -> str:
    """`text` on one line, each character that cannot be drawn replaced by U+FFFD.

    Takes file names with surrogate escapes, control characters and any script;
    invisible format characters (joiners, direction marks) are dropped.
    """
    characters = []
    for character in unicodedata.normalize("NFC", str(text)):
        if character.isspace():
            characters.append(" ")
        elif unicodedata.category(character) != "Cf":
            drawable = character.isprintable() and ord(character) in _drawable()
            characters.append(character if drawable else REPLACEMENT)
    return "".join(characters)


def class_name(names: Sequence[str] | None, label: int) -> str:
    """The drawable name of class `label`; "class 7" where there is none to draw."""
    known = names is not None and 0 <= label < len(names)
    return drawable_name(names[label], label) if known else f"class {label}"


def drawable_name(name: str, label: int) -> str:
    """`name` as the font can draw it; "class 7" where nothing of it can be drawn."""
    name = printable(name)
    return name if name.strip(REPLACEMENT + " ") else f"class {label}"


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters: an ellipsis for the middle, both ends kept.

    Names of one data set often begin alike and differ at the end.
    """
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 3
    return text[: limit - 1 - tail].rstrip() + "…" + text[len(text) - tail :].lstrip()


def fit(text: str, face, width: float) -> str:
    """The longest beginning of `text` that `face` draws within `width` pixels."""
    text = text[:500]
    if face.getlength(text) <= width:
        return text
    lengths = range(len(text))
    cut = bisect.bisect_right(
        lengths, width, key=lambda n: face.getlength(text[:n] + "…")
    )
    return text[: max(cut - 1, 0)].rstrip() + "…"


def plain(text, limit: int = 60) -> str:
    """`text` for a figure: drawable, short, and its dollars no mathematics."""
    return shorten(printable(text), limit).replace("$", r"\$")
