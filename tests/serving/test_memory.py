"""Threads of the server share their heaps: what one frees another can use."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, sys, threading
from visionkit.serving.server.memory import limit_arenas

if "limit" in sys.argv:
    assert limit_arenas()
together = threading.Barrier(8)

def allocate():
    kept = bytearray(10_000)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def heaps(*words):
    command = [sys.executable, "-c", SCRIPT, *words]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return run.stdout.count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps are glibc's")
def test_threads_share_two_heaps(monkeypatch):
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    assert heaps() > 2
    assert heaps("limit") <= 2
