"""uvicorn's HTTP, with a time in which a client has to say what it wants."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


class PromptHttp(H11Protocol):
    """HTTP/1.1 that closes connections on which no whole header comes.

    uvicorn waits for the header of a request for ever, and an open connection costs a
    file of which a process has about a thousand.

    Args:
        seconds: Longest time for a header to arrive, of a connection that is new or on
            which one has begun.
    """

    def __init__(self, seconds: float, **options):
        super().__init__(**options)
        self._seconds = seconds
        self._header_timer: asyncio.TimerHandle | None = None

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
        super().connection_lost(exc)

    def _watch_header(self):
        self._header_timer = self.loop.call_later(self._seconds, self._give_up)

    def _stop_watching(self):
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self):
        if not self.transport.is_closing():
            self.transport.write(_LATE)
            self.transport.close()
