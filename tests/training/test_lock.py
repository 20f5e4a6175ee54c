"""One training at a time writes into a run folder."""

import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile

import pytest

from visionkit.training import lock
from visionkit.training.lock import FolderInUseError, locked

HOLDER = """
import sys, time
from visionkit.training.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process, which has the lock of `tmp_path / "run"`."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_who_is_first(tmp_path, holder):
    with (
        pytest.raises(FolderInUseError, match=rf"run is .* process {holder.pid} on "),
        locked(tmp_path / "run"),
    ):
        pytest.fail("the lock was given twice")
    with locked(tmp_path / "other"):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_killed_process_is_taken_over_and_told(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    with (
        pytest.warns(UserWarning, match=rf"process {holder.pid} .* was killed"),
        locked(tmp_path / "run"),
    ):
        pass
    with locked(tmp_path / "run"):  # a second time there is nothing to tell
        pass


def test_a_lock_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path):
        with pytest.raises(FolderInUseError), locked(tmp_path):
            pass
        raise KeyboardInterrupt
    with locked(tmp_path):
        pass
    assert (tmp_path / lock.LOCK_NAME).read_text() == ""


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with (
        pytest.warns(UserWarning, match="cannot be locked .No locks"),
        locked(tmp_path),
    ):
        pass
    monkeypatch.setattr(lock, "fcntl", None)  # as on Windows
    with pytest.warns(UserWarning, match="no flock"), locked(tmp_path):
        pass


@pytest.fixture
def nobody():
    """Not root, whom the system lets write anywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_folder_that_cannot_be_written_is_refused_with_its_name(nobody):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        for path in (folder, f"{folder}/new"):
            message = f"The run folder '{path}' cannot be written: Permission"
            with pytest.raises(PermissionError, match=message), locked(path):
                pytest.fail("it could be written")


def test_a_full_disk_is_told_before_anything_is_trained(tmp_path):
    """A file-size limit stands in for the full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot be written: File"), locked(tmp_path):
            pytest.fail("it could be written")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").touch()
    with (
        pytest.raises(FileExistsError, match="Choose another"),
        locked(tmp_path / "run"),
    ):
        pass
