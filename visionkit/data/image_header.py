"""What the header of an image file tells, and the refusal of an image."""

from __future__ import annotations

import dataclasses
import os

SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jfif"),
    "png": (".png",),
    "gif": (".gif",),
    "bmp": (".bmp",),
    "webp": (".webp",),
}
"""Format -> its file suffixes, in lower case."""


class BadImage(ValueError):
    """An image that cannot be used.

    Attributes:
        rule: Dotted name of the rule: image.empty, image.format, image.truncated,
            image.corrupt, image.too_large, image.too_small, image.not_a_file,
            image.unreadable, or record.damaged for what holds it.
        detail: What was found, for a person.
    """

    def __init__(self, rule: str, detail: str):
        super().__init__(f"{rule}: {detail}")
        self.rule = rule
        self.detail = detail

    def __reduce__(self):
        return type(self), (self.rule, self.detail)


@dataclasses.dataclass(frozen=True)
class ImageHeader:
    """What the first bytes of an image say.

    Attributes:
        format: "jpeg", "png", "gif", "bmp" or "webp".
        height: Pixels, as stored (see `upright_size`).
        width: Pixels, as stored.
        channels: 1 grey, 2 grey + alpha, 3 colour, 4 colour + alpha, or CMYK in JPEG.
        bit_depth: Bits per sample; 16 only in PNG.
        orientation: EXIF orientation 1..8, 1 where there is none.
        animated: There are more pictures, which are not used.
    """

    format: str
    height: int
    width: int
    channels: int
    bit_depth: int = 8
    orientation: int = 1
    animated: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) after the EXIF orientation is applied."""
        size = (self.height, self.width)
        return size[::-1] if self.orientation >= 5 else size

    def notes(self, name: str | bytes | None = None) -> list[str]:
        """Names of what is unusual but usable.

        Args:
            name: The file's name, to compare its suffix with the content.

        Returns:
            Some of "image.16bit", "image.alpha", "image.animated", "image.cmyk",
            "image.exif_rotated", "image.extension" and "image.grey".
        """
        alpha = self.channels == 2 or (self.channels == 4 and self.format != "jpeg")
        found = {
            "image.16bit": self.bit_depth == 16,
            "image.alpha": alpha,
            "image.animated": self.animated,
            "image.cmyk": self.channels == 4 and self.format == "jpeg",
            "image.exif_rotated": self.orientation > 1,
            "image.grey": self.channels <= 2,
        }
        if name is not None:
            suffix = os.path.splitext(os.fsdecode(name))[1].lower()
            found["image.extension"] = suffix not in SUFFIXES[self.format]
        return sorted(note for note, holds in found.items() if holds)
