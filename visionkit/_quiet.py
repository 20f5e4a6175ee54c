"""Importing TensorFlow and Keras without their start-up chatter."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile

# Written by TensorFlow's C++ before its log level is in force. Everything else that
# appears on stderr during the import (a missing library, a crash) is passed on.
_CHATTER = re.compile(
    rb"All log messages before absl::InitializeLog|oneDNN custom operations"
    rb"|Could not find cuda drivers|rebuild TensorFlow with the appropriate"
    rb"|This TensorFlow binary is optimized|Unable to register cu"
    rb"|computation_placer already registered|TF-TRT Warning"
)


@contextlib.contextmanager
def quiet_start():
    """Within it, TensorFlow may be imported; its known chatter is dropped."""
    if "tensorflow" in sys.modules:
        yield
        return
    try:
        stderr = os.dup(2)
    except OSError:  # no stderr at all (pythonw)
        yield
        return
    with tempfile.TemporaryFile() as captured:
        try:
            os.dup2(captured.fileno(), 2)
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            captured.seek(0)
            rest = [line for line in captured if not _CHATTER.search(line)]
            if b"".join(rest).strip():
                os.write(2, b"".join(rest))
