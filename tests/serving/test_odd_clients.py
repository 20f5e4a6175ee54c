"""Clients that speak HTTP oddly, slowly or not to the end are answered or let go."""

import contextlib
import os
import socket
import threading
import time

import pytest
import requests
from adders import publish_adder

from visionkit.serving.server.limits import Limits
from visionkit.serving.server.server import Server

PATH = b"/v1/models/adder:predict"
BODY = b'{"inputs": [[1, 2]]}'


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("odd")
    publish_adder(base / "adder", 10)
    limits = Limits(body_bytes=1_000_000, requests=30, read_seconds=1)
    with Server(base, port=0, grpc_port=0, threads=2, limits=limits) as running:
        yield running


def talk(server, request):
    """What comes back until the server closes the connection."""
    with socket.create_connection((server.host, server.port), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):  # refused before it was all sent
            connection.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                answer += data
        return answer


def post(*headers, body=BODY, version=b"1.1", method=b"POST", path=PATH):
    head = b"%s %s HTTP/%s" % (method, path, version)
    headers = (b"Host: a", b"Connection: close", *headers)
    return b"\r\n".join([head, *headers, b"", body])


def sized(body=BODY, **options):
    return post(b"Content-Length: %d" % len(body), body=body, **options)


CHUNKED = b"Transfer-Encoding: chunked"


REQUESTS = {
    "good": (sized(), 200, b'"outputs"'),
    "HTTP/1.0": (sized(version=b"1.0"), 200, b'"outputs"'),
    "chunked": (
        post(CHUNKED, body=b"5\r\n%b\r\nf\r\n%b\r\n0\r\n\r\n" % (BODY[:5], BODY[5:])),
        200,
        b'"outputs"',
    ),
    "no chunks": (post(CHUNKED, body=b"zz\r\n"), 400, b""),
    "length too small": (post(b"Content-Length: 5"), 400, b"JSON Parse error"),
    "length too large": (post(b"Content-Length: 500"), 408, b"did not arrive"),
    "length negative": (post(b"Content-Length: -1"), 400, b"Invalid HTTP"),
    "two lengths": (post(b"Content-Length: 2", b"Content-Length: 3"), 400, b"Invalid"),
    "long header": (post(b"X: " + b"x" * 1_000_000), 400, b"Invalid HTTP"),
    "endless header": (b"POST %b HTTP/1.1\r\nHost: a\r\nX-" % PATH, 408, b""),
    "nothing": (b"", 408, b""),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, b"Invalid HTTP"),
    "no path": (b"GET\r\n\r\n", 400, b"Invalid HTTP"),
    "DELETE": (sized(method=b"DELETE"), 404, b"Not Found"),
    "unknown method": (sized(method=b"BREW"), 404, b"Not Found"),
    "unknown verb": (sized(path=b"/v1/models/adder:guess"), 404, b"Not Found"),
    "other files": (sized(path=b"/v1/models/../../etc/passwd"), 404, b"Not Found"),
    "NaN": (sized(b'{"inputs": [[1, NaN]]}'), 200, b"NaN"),
    "deep JSON": (sized(b"[" * 500_000), 400, b"nested too deeply"),
    "bad base64": (
        sized(b'{"signature_name": "strings", "inputs": [{"b64": "%"}]}'),
        400,
        b"base64",
    ),
}
"""Name -> what is sent, the status of its answer, words in it."""


@pytest.mark.parametrize("name", REQUESTS)
def test_odd_requests_get_their_status(server, name):
    request, status, words = REQUESTS[name]
    answer = talk(server, request)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert words in answer
    assert talk(server, sized()).startswith(b"HTTP/1.1 200 ")


def test_a_body_of_100_mb_is_refused_and_not_kept(server):
    def body():
        for _ in range(100):
            yield bytes(1_000_000)

    pages = resident()
    answer = requests.post(f"{server.url}{PATH.decode()}", data=body(), timeout=60)
    # The second: on a machine that does not take it in within `read_seconds`.
    assert answer.status_code in (413, 408) and "error" in answer.json()
    assert resident() - pages < 30e6


def test_who_takes_nothing_of_an_answer_is_let_go(tmp_path):
    publish_adder(tmp_path / "adder", 10)
    body = b'{"signature_name": "strings", "inputs": ["%b"]}' % (b"a" * 8_000_000)
    options = {"port": 0, "grpc_port": 0, "threads": 2}
    with Server(tmp_path, limits=Limits(write_seconds=1), **options) as server:

        def ask():
            connection = socket.create_connection((server.host, server.port), 30)
            connection.sendall(sized(body))
            return connection

        with ask() as connection, pytest.raises(ConnectionError):
            end = time.monotonic() + 30
            while time.monotonic() < end:
                connection.send(b"\r\n")
                time.sleep(0.1)
        with ask() as slow:
            taken = 0
            while piece := slow.recv(1_000_000, socket.MSG_WAITALL):
                taken += len(piece)
                time.sleep(0.2)
        assert taken > 18_000_000


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_clients_that_leave_or_linger_leave_nothing_behind(server):
    talk(server, sized())
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    upload = post(b"Content-Length: 900", body=b"{")
    lingering = []
    for index in range(40):  # more than may be under way
        connection = socket.create_connection((server.host, server.port))
        connection.sendall(upload if index % 2 else upload[:20])
        if index < 20:
            connection.close()
        else:
            lingering.append(connection)
    for connection in lingering:
        connection.settimeout(30)
        assert b" 408 " in connection.recv(1000) + connection.recv(1000)
        connection.close()
    end = time.monotonic() + 30
    while len(os.listdir("/proc/self/fd")) > files:
        assert time.monotonic() < end, "connections are left"
        time.sleep(0.05)
    assert threading.active_count() <= threads
    assert talk(server, sized()).startswith(b"HTTP/1.1 200 ")
