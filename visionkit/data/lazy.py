"""TensorFlow, imported when it is first used.

The table of transforms names classes whose bodies are graph code; listing them, or
refusing a wrong recipe, must not cost TensorFlow's import.
"""

from __future__ import annotations


class _LazyTensorFlow:
    def __getattr__(self, name: str):
        import tensorflow

        return getattr(tensorflow, name)


tf = _LazyTensorFlow()
