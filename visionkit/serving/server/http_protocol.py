"""uvicorn's HTTP, with times in which a client has to ask and to take its answer."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


class PromptHttp(H11Protocol):
    """HTTP/1.1 that closes connections on which nothing moves.

    uvicorn waits for ever for the header of a request, and for a client to take its
    answer, which stays in memory. An open connection costs a file too, of which a
    process has about a thousand.

    Args:
        read_seconds: Longest time for a header to arrive, of a connection that is new
            or on which one has begun.
        write_seconds: Longest time in which nothing of an answer is taken.
    """

    def __init__(self, read_seconds: float, write_seconds: float, **options):
        super().__init__(**options)
        self._read_seconds = read_seconds
        self._write_seconds = write_seconds
        self._header_timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport):
        """Begin to wait for the first header."""
        super().connection_made(transport)
        self._watch_header()

    def data_received(self, data):
        """Wait on, or no longer."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_watching()
        elif self._header_timer is None:
            self._watch_header()

    def connection_lost(self, exc):
        """There is nothing to wait for."""
        self._stop_watching()
        self._stop_watching_answer()
        super().connection_lost(exc)

    def pause_writing(self):
        """The client has to take what is there before more is written."""
        super().pause_writing()
        self._watch_answer()

    def resume_writing(self):
        """It has."""
        self._stop_watching_answer()
        super().resume_writing()

    def _watch_answer(self):
        left = self.transport.get_write_buffer_size()
        self._answer_timer = self.loop.call_later(
            self._write_seconds, self._look_at_answer, left
        )

    def _look_at_answer(self, left: int):
        if self.transport.get_write_buffer_size() < left:  # slowly, but it reads
            self._watch_answer()
        else:
            self.transport.abort()

    def _stop_watching_answer(self):
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    def _watch_header(self):
        self._header_timer = self.loop.call_later(self._read_seconds, self._give_up)

    def _stop_watching(self):
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self):
        if not self.transport.is_closing():
            self.transport.write(_LATE)
            self.transport.close()
