"""What the host-side evaluators of classifiers share."""

from __future__ import annotations

from collections.abc import Sequence


class ClassEvaluator:
    """Base of evaluators over named classes; a subclass has `reset`.

    Args:
        class_names: K names in label order.
        num_mistakes: How many of the worst mistakes `result` lists.

    Raises:
        ValueError: No class names, or a negative `num_mistakes`.
    """

    def __init__(self, class_names: Sequence[str], *, num_mistakes: int = 25):
        self.class_names = tuple(class_names)
        self.num_mistakes = num_mistakes
        if not self.class_names:
            raise ValueError("`class_names` must hold at least one name. Received: ()")
        if num_mistakes < 0:
            raise ValueError(
                f"`num_mistakes` must be at least 0. Received: {num_mistakes}"
            )
        self.reset()

    def reset(self) -> None:
        """Forget every example."""
        raise NotImplementedError(f"{type(self).__name__} must define `reset`.")
