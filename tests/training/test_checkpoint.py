"""A checkpoint is the old or the new one, and a bad one is never used in silence."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from visionkit.training import files
from visionkit.training.checkpoint import (
    CheckpointError,
    CheckpointStore,
    NonFiniteError,
    atomic_replace,
    atomic_write_json,
    atomic_write_text,
)


def arrays(value: float) -> dict[str, np.ndarray]:
    return {
        "model/0000/kernel": np.full((3, 5), value, np.float32),
        "model/0001/seed": np.array([1, 2**40], np.int64),
        "scalar": np.float64(value),
        "empty": np.zeros((0, 4), np.float32),
    }


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(bytes(data))


def test_save_and_load_round_trip_keeps_values_dtypes_and_state(tmp_path):
    store = CheckpointStore(tmp_path / "a" / "b")
    state = {"epoch": 3, "best": None, "rows": [{"loss": float("inf")}]}
    path = store.save(7, arrays(0.1), state)
    assert store.latest() == path
    checkpoint = CheckpointStore(tmp_path / "a" / "b").load()
    assert (checkpoint.step, checkpoint.state, checkpoint.skipped) == (7, state, [])
    for name, array in arrays(0.1).items():
        np.testing.assert_array_equal(checkpoint.arrays[name], array)
        assert checkpoint.arrays[name].dtype == array.dtype
    assert CheckpointStore(tmp_path / "empty").load() is None


def test_save_bfloat16_survives(tmp_path):
    saved = np.array([[1.5, -2.25], [3e38, 0.0]], ml_dtypes.bfloat16)
    store = CheckpointStore(tmp_path)
    store.save(1, {"w": saved, "s": saved[0, 0]}, {})
    loaded = store.load().arrays
    assert loaded["w"].dtype == loaded["s"].dtype == saved.dtype
    np.testing.assert_array_equal(loaded["w"], saved)


def test_save_keeps_the_newest_generations_by_step_not_by_time(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    for step in (8, 9, 10, 11):
        os.utime(store.save(step, arrays(step), {}), (2e9 - step, 2e9 - step))
    assert store.load().step == 11
    assert len(list(tmp_path.glob("*.npz"))) == len(list(tmp_path.glob("*.json"))) == 2


def test_save_of_an_earlier_step_drops_the_abandoned_later_ones(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    flip_byte(store.save(20, arrays(20), {}), 300)
    store.save(15, arrays(15), {})
    loaded = store.load()
    assert (loaded.step, loaded.skipped) == (15, [])
    store.save(15, arrays(15.5), {})
    assert store.load().arrays["scalar"] == 15.5
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "manifest", "format"])
def test_load_walks_back_over_damage_and_says_so(tmp_path, damage):
    store = CheckpointStore(tmp_path)
    store.save(1, arrays(1), {})
    newest = store.save(2, arrays(2), {})
    manifest = newest.with_suffix(".json")
    if damage == "flip":
        flip_byte(newest, 400)
    elif damage == "cut":
        newest.write_bytes(newest.read_bytes()[:-9])
    elif damage == "gone":
        newest.unlink()
    elif damage == "manifest":
        manifest.write_text(manifest.read_text()[:20])
    else:
        manifest.write_text(
            json.dumps(json.loads(manifest.read_text()) | {"format": 9})
        )
    loaded = store.load()
    assert loaded.step == 1
    assert len(loaded.skipped) == 1 and newest.name in loaded.skipped[0]


def test_load_all_damaged_is_an_error_not_a_fresh_start(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        flip_byte(store.save(step, arrays(step), {}), 400)
    with pytest.raises(CheckpointError, match=r"(?s)0002-0.npz.*sha256.*0001-0.npz"):
        store.load()


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_save_refuses_values_that_are_not_finite(tmp_path, bad, dtype):
    store = CheckpointStore(tmp_path)
    store.save(1, arrays(1), {})
    before = sorted(tmp_path.iterdir())
    with pytest.raises(NonFiniteError, match="dense/kernel"):
        store.save(2, {"dense/kernel": np.array([0, bad], dtype)}, {})
    assert sorted(tmp_path.iterdir()) == before
    assert store.load().step == 1


@pytest.mark.parametrize("bad", [np.array([object()]), np.array(["a"])])
def test_save_refuses_objects_and_strings(tmp_path, bad):
    with pytest.raises(TypeError, match="'x' of dtype"):
        CheckpointStore(tmp_path).save(1, {"x": bad}, {})


def test_keep_zero_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep=0"):
        CheckpointStore(tmp_path, keep=0)


def test_disk_full_names_folder_and_bytes_and_changes_nothing(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, arrays(1), {})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"400\d\d bytes are needed") as caught:
            store.save(2, {"big": np.zeros(10_000, np.float32)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(tmp_path) in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_disk_full_at_fsync_is_told_too(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    atomic_write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space to write 'a\.txt'"):
        atomic_write_text(tmp_path / "a.txt", "new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_atomic_replace_keeps_the_suffix_and_removes_its_file_on_error(tmp_path):
    target = tmp_path / "model.keras"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_replace(target) as temporary:
        assert temporary.suffix == ".keras" and temporary.parent == tmp_path
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]
    with atomic_replace(target) as temporary:
        temporary.write_text("new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["new"]
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


def test_atomic_write_json_is_json_for_every_reader(tmp_path):
    value = {"a": np.float32(0.5), "b": np.arange(2), "c": [float("nan"), np.inf]}
    atomic_write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": 0.5, "b": [0, 1], "c": [None, None]}


# Call number k to one of the four functions kills the process; a write may have
# written half of its buffer. Each k runs in a fork, which starts in a millisecond.
CRASH = """
import os, sys
import numpy as np
from visionkit.training.checkpoint import CheckpointStore

def crash_at(k, half):
    calls = 0
    def wrap(function):
        def wrapped(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == k:
                if half and function is write:
                    write(args[0], args[1][: len(args[1]) // 2])
                os._exit(137)
            return function(*args, **kwargs)
        return wrapped
    write = os.write
    for name in ("write", "fsync", "replace", "unlink"):
        setattr(os, name, wrap(getattr(os, name)))

def state(value):
    return {"w": np.full((3, 5), value, np.float32), "b": np.full(2, value)}

def value(folder, keep):
    loaded = CheckpointStore(folder, keep).load()
    if loaded is None:
        return None
    (value,) = {loaded.state["value"], *np.concatenate(
        [array.ravel() for array in loaded.arrays.values()])}
    return int(value)

root, kind = sys.argv[1:]
first, second, keep = {
    "first": (None, 1, 3), "next": (1, 2, 3), "prune": (1, 2, 1), "again": (1, 1, 3)
}[kind]
points = 0
for half in (False, True):
    for k in range(1, 1000):
        folder = f"{root}/{half}-{k}"
        store = CheckpointStore(folder, keep)
        if first is not None:
            store.save(first, state(10), {"value": 10})
        child = os.fork()
        if child == 0:
            crash_at(k, half)
            store.save(second, state(20), {"value": 20})
            os._exit(0)
        crashed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = value(folder, keep)
        assert found in (10 if first else None, 20), (kind, half, k, found)
        assert not [f for f in os.listdir(folder) if f.startswith(".")]
        if crashed == 0:
            assert found == 20
            break
        # Life goes on after the crash, and nothing is left over.
        CheckpointStore(folder, keep).save(3, state(30), {"value": 30})
        assert value(folder, keep) == 30 and len(os.listdir(folder)) <= 2 * keep
        points += 1
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
print(points)
"""


@pytest.mark.parametrize("kind", ["first", "next", "prune", "again"])
def test_crash_at_every_system_call_leaves_the_old_or_the_new_state(tmp_path, kind):
    command = [sys.executable, "-c", textwrap.dedent(CRASH), str(tmp_path), kind]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20  # both variants, a dozen calls and more each
