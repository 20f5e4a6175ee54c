"""Loading models safely: nothing foreign is imported, nothing is unpickled."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import threading
from pathlib import Path

from visionkit._quiet import import_keras

# A model has more variables than its file has weights: moments and averages of the
# optimizer, counts of metrics.
_COPIES = 6
_SPARE = 2**24

_one_at_a_time = threading.RLock()


def load(path: str | os.PathLike):
    """The trained model of a run folder or a `.keras` file, compiled as it was saved.

    Plain `keras.saving.load_model` reads the same files (with visionkit imported behind
    Keras, or used before); this refuses besides, before anything is built or allocated,
    what names foreign code, refers to other files, or declares more than it holds.

    Args:
        path: A run folder (its `model.keras` is read) or a `.keras` file.

    Returns:
        A `VisionTask`, or any other Keras model the file holds.

    Raises:
        FileNotFoundError: There is no model at `path`.
        ValueError: The file is no `.keras` file, damaged, refused, or of another
            version.
    """
    path = Path(path)
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        hint = ""
        if (path / "recipe.yaml").is_file():
            hint = (
                " The run has not ended its first epoch; go on with it by "
                f"`python -m visionkit.tasks train {path} --resume`."
            )
        elif path.is_dir():
            hint = " Name a run folder, which has one, or a .keras file."
        raise FileNotFoundError(f"There is no model at {file}.{hint}")
    if file.suffix != ".keras":  # by the name Keras would choose an older reader
        raise ValueError(
            f"{file} is no .keras file, by its name. Expected the model.keras of a run "
            "folder, or what `model.save('NAME.keras')` wrote."
        )
    import_keras()
    import keras

    from visionkit.tasks.archives import inspect_archive

    archive = inspect_archive(file)
    try:
        for module in sorted(archive.modules):
            importlib.import_module(module)
        with _one_at_a_time, _bounded_variables(_COPIES * archive.values + _SPARE):
            return keras.saving.load_model(file, safe_mode=True)
    except Exception as error:  # whatever a class makes of a config that is not its own
        # Keras writes the whole config before the reason.
        reason = str(error).rpartition("Exception encountered: ")[2]
        raise ValueError(
            f"{file} cannot be built ({type(error).__name__}: {reason:.400}). It was "
            "changed, or written by another version; take an older checkpoint or "
            "train again."
        ) from error


@contextlib.contextmanager
def _bounded_variables(limit: int):
    """Within the block, this thread's Keras variables have `limit` values in all.

    Layers allocate by their config before the weights of the file are compared with
    them, and Keras has no place to ask first.
    """
    import keras

    thread, count = threading.get_ident(), 0
    make = keras.Variable.__init__

    def make_bounded(self, initializer, shape=None, *args, **kwargs):
        nonlocal count
        if threading.get_ident() == thread and shape is not None:
            count += math.prod(side or 0 for side in shape)
            if count > limit:
                raise ValueError(
                    f"its layers declare more than {limit} numbers, far more than it "
                    f"has weights. First beyond: shape {tuple(shape)}"
                )
        make(self, initializer, shape, *args, **kwargs)

    keras.Variable.__init__ = make_bounded
    try:
        yield
    finally:
        keras.Variable.__init__ = make
