"""Names of files that annotations give, held inside one folder."""

from __future__ import annotations

import os
import unicodedata

from visionkit.data.sources.base import Skip


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
        self._listings: dict[bytes, dict[bytes, str]] = {}  # name -> kind
        self._folded: dict[bytes, dict[str, bytes]] = {}

    def join(self, name: str) -> str:
        """The path that a name stands for, for a message."""
        return os.path.join(os.fsdecode(self.root), name)

    def find(self, name: str, kind: str = "file") -> bytes | None:
        """The file, or None if there is no regular one; see `skip`.

        Args:
            name: Path below the folder, with `/`.
            kind: "folder" to find a folder, or a file as well.

        Raises:
            PathError: It would be outside the folder, or is no path.
        """
        inside = f"a path inside {os.fsdecode(self.root)!r} (see `images`)"
        parts = name.replace("\\", "/").split("/")
        if not name or os.path.normpath(name) == ".":
            raise PathError("no path", "the path of an image")
        if "\0" in name:
            raise PathError("a NUL in a path", "a path without it")
        if os.path.isabs(name) or not parts[0] or parts[0][1:] == ":" or ".." in parts:
            raise PathError("an absolute path, or one with `..`", inside)
        path = self._path(name)
        folder, base = os.path.split(path)
        found = self._listing(folder).get(base)
        if found == "link":  # only now is it worth a look
            self._check_inside(path)
            found = "folder" if os.path.isdir(path) else None
            found = "file" if os.path.isfile(path) else found
        elif found is None and "\\" in name:
            raise PathError("a path with backslashes", "`/` between folders")
        return path if found in ("file", kind) else None

    def skip(self, name: str, place: str) -> Skip:
        """What to say of a name for which `find` has nothing.

        Args:
            name: As `find` received it.
            place: Where it stands.
        """
        folder, base = os.path.split(self._path(name))
        listing = self._listing(folder)
        if base in listing:
            detail = f"a folder, a pipe, a device or a broken link; {place}"
            return Skip(self.join(name), "image.not_a_file", detail)
        if folder not in self._folded:
            self._folded[folder] = {fold_name(found): found for found in listing}
        twin = self._folded[folder].get(fold_name(base))
        hint = f" (but {os.fsdecode(twin)!r})" if twin else ""
        return Skip(self.join(name), "image.missing", f"no such file{hint}; {place}")

    def _path(self, name: str) -> bytes:
        try:
            return os.path.normpath(os.path.join(self.root, os.fsencode(name)))
        except UnicodeEncodeError:  # half of a pair of UTF-16
            raise PathError("no text that a file can be called", "Unicode") from None

    def _listing(self, folder: bytes) -> dict[bytes, str]:
        if folder not in self._listings:
            self._listings[folder] = {}
            if os.path.isdir(folder):
                self._check_inside(folder)
                with os.scandir(folder) as entries:
                    self._listings[folder] = {e.name: _kind(e) for e in entries}
        return self._listings[folder]

    def _check_inside(self, path: bytes) -> None:
        if not os.path.join(os.path.realpath(path), b"").startswith(self._real):
            raise PathError("a link out of the folder of images", "a file inside it")


def fold_name(name: bytes) -> str:
    """The name without what some file systems do not tell apart: capitals, and the
    ways in which Unicode spells an accent."""
    return unicodedata.normalize("NFC", os.fsdecode(name)).casefold()


def _kind(entry: os.DirEntry) -> str:
    """Of "file", "folder", "link" and "other", without a system call."""
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "other"
