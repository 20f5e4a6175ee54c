"""Programs in processes of their own, which never hang a test."""

import os
import subprocess
import sys
import threading

LONGEST = 600.0  # seconds of one program, also on a busy machine


def start_program(folder, code, *arguments):
    """A Python program with pipes; it is killed when it takes too long."""
    # JAX, where another test has imported it, sets TensorFlow's log level for this
    # process and its children. The program shall have the one that visionkit sets.
    env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = threading.Timer(LONGEST, process.kill)
    watch.daemon = True
    watch.start()
    return process


def finish(process, status=0, timeout=LONGEST):
    """What a program says to its end, which must be of that status."""
    output, errors = process.communicate(timeout=timeout)
    assert process.returncode == status, errors
    assert "Traceback" not in errors, errors
    return output, errors
