"""Names of files that annotations give, held inside one folder."""

from __future__ import annotations

import os


class PathError(ValueError):
    """A name that is no file inside the folder.

    Attributes:
        found: What the name is.
        expected: What it should be.
    """

    def __init__(self, found: str, expected: str):
        super().__init__(f"{found}. Expected {expected}.")
        self.found = found
        self.expected = expected


class ImagePaths:
    """Finds named files in a folder without a system call for each.

    Every folder that a name leads to is listed once. The folder itself may be a link,
    since the user named it; what an annotation names may not lead out of it.

    Args:
        root: The folder.

    Raises:
        FileNotFoundError: There is no such folder.
    """

    def __init__(self, root: str | os.PathLike | bytes):
        self.root = os.fsencode(root)
        if not os.path.isdir(self.root):
            raise FileNotFoundError(
                f"No such folder of images: {os.fsdecode(root)!r} "
                f"(seen from {os.getcwd()!r})."
            )
        self._real = os.path.join(os.path.realpath(self.root), b"")
        self._listings: dict[bytes, dict[bytes, bool]] = {}  # name -> is a link

    def join(self, name: str) -> str:
        """The path that a name stands for, for a message."""
        return os.path.join(os.fsdecode(self.root), name)

    def find(self, name: str) -> bytes | None:
        """The file, or None if it is not there.

        Args:
            name: Path below the folder, with `/`.

        Raises:
            PathError: It would be outside the folder, or is no path.
        """
        inside = f"a path inside {os.fsdecode(self.root)!r} (see `images`)"
        parts = name.replace("\\", "/").split("/")
        if not name:
            raise PathError("no path", "the path of an image")
        if "\0" in name:
            raise PathError("a NUL in a path", "a path without it")
        if os.path.isabs(name) or not parts[0] or parts[0][1:] == ":" or ".." in parts:
            raise PathError("an absolute path, or one with `..`", inside)
        path = os.path.normpath(os.path.join(self.root, os.fsencode(name)))
        folder, base = os.path.split(path)
        listing = self._listing(folder)
        if base in listing:
            if listing[base]:  # a link: only now is it worth a look
                self._check_inside(path)
                return path if os.path.exists(path) else None
            return path
        if "\\" in name:
            raise PathError("a path with backslashes", "`/` between folders")
        return None

    def _listing(self, folder: bytes) -> dict[bytes, bool]:
        if folder not in self._listings:
            self._listings[folder] = {}
            if os.path.isdir(folder):
                self._check_inside(folder)
                with os.scandir(folder) as entries:
                    self._listings[folder] = {e.name: e.is_symlink() for e in entries}
        return self._listings[folder]

    def _check_inside(self, path: bytes) -> None:
        if not os.path.join(os.path.realpath(path), b"").startswith(self._real):
            raise PathError("a link out of the folder of images", "a file inside it")
