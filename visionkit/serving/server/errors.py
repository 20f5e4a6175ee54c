"""Refusals by their canonical code, and what each is in HTTP."""

from __future__ import annotations

import re

import tensorflow as tf

# Canonical code -> (its number, HTTP status), as TensorFlow Serving maps them.
CODES = {
    "OK": (0, 200),
    "CANCELLED": (1, 499),
    "UNKNOWN": (2, 500),
    "INVALID_ARGUMENT": (3, 400),
    "DEADLINE_EXCEEDED": (4, 504),
    "NOT_FOUND": (5, 404),
    "ALREADY_EXISTS": (6, 409),
    "PERMISSION_DENIED": (7, 403),
    "RESOURCE_EXHAUSTED": (8, 429),
    "FAILED_PRECONDITION": (9, 400),
    "ABORTED": (10, 409),
    "OUT_OF_RANGE": (11, 400),
    "UNIMPLEMENTED": (12, 501),
    "INTERNAL": (13, 500),
    "UNAVAILABLE": (14, 503),
    "DATA_LOSS": (15, 500),
    "UNAUTHENTICATED": (16, 401),
}
_NAMES = {number: name for name, (number, _) in CODES.items()}

_LONGEST = 1000  # characters of a message; some errors repeat what was sent


class ServingError(Exception):
    """A refused request.

    Attributes:
        code: Canonical name, e.g. "INVALID_ARGUMENT"; also gRPC's.
        message: For the client.
        status: HTTP status; by default the code's.
    """

    def __init__(self, code: str, message: str, status: int | None = None):
        super().__init__(message)
        self.code = code
        self.message = message[:_LONGEST]
        self.status = status or CODES[code][1]


def as_serving_error(error: BaseException) -> ServingError:
    """The refusal that an exception amounts to; unknown ones tell nothing inside."""
    if isinstance(error, ServingError):
        return error
    if isinstance(error, tf.errors.OpError):
        return ServingError(_NAMES.get(error.error_code, "UNKNOWN"), op_message(error))
    return ServingError("INTERNAL", f"{type(error).__name__} in the server")


def op_message(error: tf.errors.OpError) -> str:
    """What a TensorFlow error says, without the trace of the graph's nodes."""
    message = error.message.removeprefix("Graph execution error:").strip()
    return re.split(r"\s*\[\[|\n\n(?:Errors|Original stack)", message)[0]
