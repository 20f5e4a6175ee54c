"""A version is there whole or not at all, wherever the export is killed."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from visionkit.serving.publish import publish, versions


def build(folder):
    (folder / "variables").mkdir()
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "data").write_bytes(b"weights")


CRASHES = """
import os, sys
from pathlib import Path
from visionkit.serving.publish import publish, versions

base, published = Path(sys.argv[1]), 0

def build(folder):
    os.mkdir(folder / "variables")
    for name in ("saved_model.pb", "variables/data"):
        file = os.open(folder / name, os.O_CREAT | os.O_WRONLY)
        os.write(file, b"content")
        os.close(file)

for crash in range(1, 100):
    if (pid := os.fork()) == 0:
        calls = 0
        def dying(function):
            def call(*args, **kwargs):
                global calls
                calls += 1
                if calls == crash:
                    os._exit(137)
                return function(*args, **kwargs)
            return call
        for name in ("mkdir", "open", "write", "fsync", "rename", "close"):
            setattr(os, name, dying(getattr(os, name)))
        publish(base, build)
        os._exit(0)
    killed = os.waitpid(pid, 0)[1] != 0
    found = versions(base)
    for folder in found.values():
        assert (folder / "saved_model.pb").read_bytes() == b"content", crash
        assert (folder / "variables/data").read_bytes() == b"content", crash
    assert len(found) - published in ((0, 1) if killed else (1,)), crash
    published = len(found)
    if not killed:
        break
assert crash > 15 and not list(base.glob(".tmp-*"))
print(crash)
"""


def test_a_kill_at_any_system_call_leaves_no_half_version(tmp_path):
    subprocess.run([sys.executable, "-c", CRASHES, str(tmp_path)], check=True)


def test_a_failed_build_leaves_nothing(tmp_path):
    def broken(folder):
        build(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "model", broken)
    assert list((tmp_path / "model").iterdir()) == []


def test_exports_at_the_same_time_get_a_version_each(tmp_path):
    threads = [threading.Thread(target=publish, args=(tmp_path, build)) for _ in "123"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions(tmp_path)) == [1, 2, 3]


def test_versions_are_what_a_server_counts(tmp_path):
    for name in ("2", "010", "x", ".tmp-3"):
        (tmp_path / name).mkdir()
    (tmp_path / "99").write_text("a file")
    assert list(versions(tmp_path)) == [2, 10]
    assert publish(tmp_path, build).name == "11"
    with pytest.raises(FileExistsError, match="Version 10 exists"):
        publish(tmp_path, build, version=10)


@pytest.mark.parametrize("file", ["model.tflite", "model.onnx"])
def test_saved_models_and_other_files_share_no_folder(tmp_path, file):
    def build_file(folder):
        (folder / file).write_bytes(b"network")

    served, others = tmp_path / "served", tmp_path / "others"
    publish(served, build)
    publish(others, build_file, portable=True)
    with pytest.raises(ValueError, match=r"SavedModels: version 1 has saved_model\.pb"):
        publish(served, build_file, portable=True)
    with pytest.raises(ValueError, match=f"ONNX files: version 1 has {file}"):
        publish(others, build)
    assert list(versions(served)) == list(versions(others)) == [1]
    assert publish(others, build_file, portable=True).name == "2"


def test_wrong_targets_are_refused(tmp_path):
    with pytest.raises(ValueError, match="version=0"):
        publish(tmp_path, build, version=0)
    Path(tmp_path, "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        publish(tmp_path / "file", build)
