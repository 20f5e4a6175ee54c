"""How much a request may ask of the development server."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is refused before it costs anything; TensorFlow Serving has no such limits.

    Attributes:
        body_bytes: Largest body of a REST request, after gzip is undone: 413.
        message_bytes: Largest gRPC message: RESOURCE_EXHAUSTED.
        batch: Most rows in a request: INVALID_ARGUMENT.
        pixels: Most pixels in a request, of encoded and decoded images:
            INVALID_ARGUMENT.
        requests: Most requests that are read, wait or run at once, of REST and of gRPC
            each: 503, RESOURCE_EXHAUSTED.
        seconds: Longest time for a request in the queue and in the model:
            DEADLINE_EXCEEDED, 504.
        read_seconds: Longest time for a request to arrive, of REST for its header and
            for its body each: 408, DEADLINE_EXCEEDED.
        write_seconds: Longest time in which a client of REST takes nothing of its
            answer: the connection is cut.
        drain_seconds: Longest time that requests under way have when the server stops.
    """

    body_bytes: int = 28_000_000  # a photograph of 20 MB in base64
    message_bytes: int = 64 << 20
    batch: int = 64
    pixels: int = 100_000_000
    requests: int = 256
    seconds: float = 30.0
    read_seconds: float = 10.0
    write_seconds: float = 30.0
    drain_seconds: float = 30.0
