"""Importing TensorFlow and Keras without their start-up chatter."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys

# Written by TensorFlow's C++ before its log level is in force. Everything else that
# appears on stderr during the import (a missing library, a crash) is passed on, by a
# process of its own, so that not even an abort loses it.
_FILTER = r"""
import re, sys
chatter = re.compile(
    rb"All log messages before absl::InitializeLog|oneDNN custom operations"
    rb"|Could not find cuda drivers|rebuild TensorFlow with the appropriate"
    rb"|is optimized to use available CPU|Unable to register cu"
    rb"|computation_placer already registered|TF-TRT Warning"
)
for line in sys.stdin.buffer:
    if not chatter.search(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


class _NoRetracingAdvice(logging.Filter):
    """Several models in one process are no mistake, though TensorFlow takes them so."""

    def filter(self, record):
        return "triggered tf.function retracing" not in record.getMessage()


logging.getLogger("tensorflow").addFilter(_NoRetracingAdvice())


@contextlib.contextmanager
def quiet_start():
    """Within it, TensorFlow may be imported; its known chatter is dropped."""
    if "tensorflow" in sys.modules or not sys.executable:
        yield
        return
    try:
        stderr = os.dup(2)
    except OSError:  # no stderr at all
        yield
        return
    sieve = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _FILTER],
        stdin=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,  # Ctrl-C is for us; the sieve ends when we do
    )
    try:
        os.dup2(sieve.stdin.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        sieve.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            sieve.wait(5)


def import_keras() -> None:
    """Import Keras, and with it the backend, quietly."""
    with quiet_start():
        import keras  # noqa: F401
