"""What a source says of itself, and of what it does not use."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class SourceInfo:
    """What a source says of itself.

    Args:
        task: One of `visionkit.types.TASKS`.
        class_names: Names in label order; no background class, but where it is a class
            of semantic masks.
        num_examples: Number of records.
        split: "train", "validation", "test" or "all".
        name: The kind of source, e.g. "image_folder".
        multi_label: Classification with any number of classes per image.
    """

    task: str
    class_names: tuple[str, ...]
    num_examples: int
    split: str = "all"
    name: str = ""
    multi_label: bool = False

    @property
    def num_classes(self) -> int:
        """Number of classes; background counts where it is in `class_names`."""
        return len(self.class_names)


@dataclasses.dataclass(frozen=True)
class Skip:
    """A file or record that is not used, and why.

    Args:
        name: File or record.
        rule: Dotted name of the rule, e.g. "image.empty".
        detail: What was found, for a person.
    """

    name: str
    rule: str
    detail: str = ""
