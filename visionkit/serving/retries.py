"""What a server refuses, and which of it is worth asking again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_DELAY = 0.1
"""Longest wait before the first further attempt, in seconds; it doubles each time."""

LONGEST_DELAY = 10.0
"""Longest wait before any attempt, in seconds."""


class CallError(RuntimeError):
    """A server did not answer.

    Attributes:
        status: HTTP status as an int, the name of a gRPC status, or None when no server
            was reached.
        retriable: Whether the same request may succeed later: the server is busy or
            not there yet. A wrong request stays wrong.
        retry_after: Seconds that the server asks to wait, or 0.
        too_large: The request is larger than the server, or what stands before it, ever
            takes; a smaller one may be taken.
    """

    def __init__(
        self,
        message: str,
        status: int | str | None = None,
        retriable: bool = False,
        retry_after: float = 0.0,
        too_large: bool = False,
    ):
        super().__init__(message)
        self.status = status
        self.retriable = retriable
        self.retry_after = retry_after
        self.too_large = too_large


def with_retries(call: Callable[[], T], retries: int, sleep=time.sleep) -> T:
    """`call()`, again where it raises a retriable `CallError`.

    The waits are drawn evenly from 0 up to a limit that doubles, so that clients which
    were refused together do not come back together; never shorter than what the server
    asks for, within `LONGEST_DELAY`.

    Args:
        call: Makes one attempt.
        retries: Further attempts, at most.
        sleep: Waits for seconds.

    Raises:
        CallError: That of the last attempt.
    """
    for attempt in range(retries + 1):
        try:
            return call()
        except CallError as error:
            if not error.retriable or attempt == retries:
                raise
            limit = min(FIRST_DELAY * 2**attempt, LONGEST_DELAY)
            asked = min(error.retry_after, LONGEST_DELAY)
            sleep(max(random.uniform(0, limit), asked))
    raise ValueError(f"`retries` must be at least 0. Received: retries={retries}")
