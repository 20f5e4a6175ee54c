"""What the errors of the runtime mean, in a recipe's words."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_OUT_OF_MEMORY = re.compile(
    r"OOM when allocating|MemoryError|bad_alloc|[Oo]ut of memory|RESOURCE_EXHAUSTED"
)
_LOST = re.compile(r"Gloo|NCCL|heartbeat|[Cc]oordination|UNAVAILABLE")
_NO_SPACE = re.compile(r"No space left|File too large|[Dd]isk quota")
# TensorFlow hands on what a Python function of a pipeline raised as text.
_RAISED = re.compile(r"\b(\w+(?:Error|Exception)): (.*?)\nTraceback \(", re.DOTALL)
_OF_OURS = ("RuntimeError", "ValueError")  # their texts need no name before them
_NAMES_OF_NODES = re.compile(r"\{\{.*?\}\} ?| ?\[Op:\w+\](?: name: ?)?")


class FolderGoneError(RuntimeError):
    """The run folder was removed in mid-run."""


class OutOfMemoryError(RuntimeError):
    """A batch does not fit into the memory."""


class ProcessLostError(RuntimeError):
    """Another process of the training is gone."""


class DataPipelineError(RuntimeError):
    """Reading or transforming the data of a training failed."""


@contextlib.contextmanager
def explained(session):
    """Within it, an error of the runtime says what it means for the recipe.

    Args:
        session: The `TrainingSession` that works within it.

    Raises:
        FolderGoneError: The run folder, or a part of it, is not there any more.
        OutOfMemoryError: Names the batch and the image size.
        ProcessLostError: Of several processes, says how to go on.
        DataPipelineError: What a Python function of the data's pipeline raised, which
            names the file.
        OSError: A disk is full on which TensorFlow itself writes.
    """
    try:
        yield
    except Exception as error:
        if meaning := _meaning(error, session):
            raise meaning from error
        raise


def _meaning(error: Exception, session) -> Exception | None:
    text = str(error)
    if isinstance(error, FileNotFoundError) and error.filename:
        parent = Path(error.filename).parent
        if Path(error.filename).is_relative_to(session.folder):
            return FolderGoneError(
                f"The run folder {session.folder}, or {parent} in it, was removed "
                "while the training was running."
            )
    if isinstance(error, MemoryError):
        return OutOfMemoryError(_too_large(session))
    if not _is_of_runtime(error):
        return None
    if session.cluster.processes > 1 and _LOST.search(text):
        return ProcessLostError(
            f"Process {session.cluster.process} of {session.cluster.processes} cannot "
            "reach another one, which has ended or is cut off; its own output says "
            "why. Start all of them again with --resume: they go on from the last "
            f"checkpoint in {session.folder}."
        )
    if _NO_SPACE.search(text):
        return OSError(f"No space to write in {session.folder}: {_plain(text)}")
    if _OUT_OF_MEMORY.search(text):
        return OutOfMemoryError(_too_large(session))
    if raised := _RAISED.search(text):
        kind, message = raised.groups()
        name = "" if kind in _OF_OURS else f"{kind}: "
        return DataPipelineError(name + _plain(message))
    return None


def _is_of_runtime(error: Exception) -> bool:
    import tensorflow as tf

    # JAX's is an alias of another in each version.
    name = repr(type(error))
    return isinstance(error, tf.errors.OpError) or any(
        known in name for known in ("XlaRuntime", "JaxRuntime")
    )


def _too_large(session) -> str:
    recipe = session.phases[session.phase]
    height, width = recipe.model.image_size
    return (
        f"There is not enough memory for batches of {recipe.data.batch_size} images "
        f"of {height}x{width} pixels. Lower data.batch_size (train.accumulation_steps "
        "keeps what a step of the optimizer sees) or model.image_size. Checkpoints "
        f"that are in {session.folder} are as they were."
    )


def _plain(text: str) -> str:
    return _NAMES_OF_NODES.sub("", text).strip()
