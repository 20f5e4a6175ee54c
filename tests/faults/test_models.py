"""Hostile and damaged model files: refused with words, before anything is made of them.

No file may make a load import, run, fetch or allocate what it likes. Damage by accident
is in `tests/tasks/test_loading.py`, `tests/training/test_checkpoint.py` and
`tests/backbones/test_weights.py`.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import socket
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from memory import bounded_memory

import visionkit as vk
from visionkit.tasks.__main__ import main
from visionkit.training.checkpoint import CheckpointError, CheckpointStore
from visionkit.training.state import model_state, restore_model_state

BOMB = 10**12
MEMORY = 100 * 2**20  # bytes that a refusal may take, mostly modules it imports


@pytest.fixture(autouse=True)
def neither_network_nor_pickle(monkeypatch):
    """Whatever is loaded here: nothing is fetched, and nothing is unpickled."""

    def refuse(*_, **__):
        raise AssertionError("a model file reached for the network, or for pickle")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A file that loads: two dense layers, compiled."""
    inputs = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(8, "relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="out")(hidden))
    model.compile("adam", "mse")
    file = tmp_path_factory.mktemp("sound") / "model.keras"
    model.save(file)
    np.testing.assert_array_equal(
        vk.load(file).get_weights()[0], model.get_weights()[0]
    )
    return file


def rewrite(sound, target, *, config=None, weights=None, **options) -> Path:
    """A copy of a `.keras` file with a config or weights changed in place."""
    with zipfile.ZipFile(sound) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if config:
        content = json.loads(members["config.json"])
        config(content)
        members["config.json"] = json.dumps(content).encode()
    if weights:
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "a") as file:
            weights(file)
        members["model.weights.h5"] = buffer.getvalue()
    with zipfile.ZipFile(target, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target


def layer_of(content: dict, name: str) -> dict:
    return next(x for x in content["config"]["layers"] if x["config"]["name"] == name)


def function(module: str, name: str) -> dict:
    return {
        "class_name": "function",
        "config": name,
        "module": module,
        "registered_name": name,
    }


# How a config can ask for code: as an activation, a layer, a loss.
CODE = {
    "another package": function("os", "system"),
    "an import of ours that is none": function("visionkit_evil.x", "run"),
    "a download": function("keras.utils", "get_file"),
    "a data set": function("keras.datasets.imdb", "load_data"),
    "a data set behind a point": function("keras", "datasets.imdb.load_data"),
    "a network with weights": function("keras.applications", "ResNet50"),
    "a reader of files": function("keras.preprocessing.image", "load_img"),
    "a switch": function("keras.config", "enable_unsafe_deserialization"),
    "a callback": {
        "class_name": "CSVLogger",
        "config": {},
        "module": "keras.callbacks",
    },
    "a lambda": {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}},
    "a Lambda": {"class_name": "Lambda", "config": {}, "module": "keras.layers"},
    "a SavedModel": {
        "class_name": "TFSMLayer",
        "config": {"filepath": "/tmp/evil", "name": "hidden"},
        "module": "keras.layers",
    },
    "a SavedModel by its inner name": {
        "class_name": "TFSMLayer",
        "config": {"filepath": "/tmp/evil"},
        "module": "keras.src.export.tfsm_layer",
    },
    "torch": {
        "class_name": "TorchModuleWrapper",
        "config": {"module": "gAA="},
        "module": "keras.layers",
    },
}


@pytest.mark.parametrize("place", ["activation", "layer", "loss"])
@pytest.mark.parametrize("code", CODE)
def test_a_config_that_asks_for_code_is_refused(sound, tmp_path, code, place):
    def plant(content):
        if place == "activation":
            layer_of(content, "hidden")["config"]["activation"] = CODE[code]
        elif place == "layer":
            layers = content["config"]["layers"]
            layers[1] = {**CODE[code], "name": "hidden", "inbound_nodes": []}
        else:
            content["compile_config"]["loss"] = CODE[code]

    file = rewrite(sound, tmp_path / "model.keras", config=plant)
    modules = set(sys.modules)
    with pytest.raises(ValueError, match=r"model\.keras (names|has) .*refused"):
        vk.load(file)
    new = {m for m in set(sys.modules) - modules if "evil" in m or "torch" in m}
    assert not new


def test_a_module_of_ours_that_is_not_there_is_no_crash(sound, tmp_path):
    def plant(content):
        layer_of(content, "hidden")["module"] = "visionkit.none"

    file = rewrite(sound, tmp_path / "model.keras", config=plant)
    with pytest.raises(ValueError, match=r"cannot be built .*visionkit\.none"):
        vk.load(file)


def replaced(name, make):
    def plant(file):
        group = file["layers/dense/vars"]
        del group[name]
        make(group, name)

    return plant


def virtual(group, name):
    layout = h5py.VirtualLayout((4, 8), "float32")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4, 8))
    group.create_virtual_dataset(name, layout)


# Weights that are not in the file itself, or are not what they seem.
WEIGHTS = {
    "ExternalLink": lambda g, n: g.__setitem__(n, h5py.ExternalLink("o.h5", "/x")),
    "SoftLink": lambda g, n: g.__setitem__(n, h5py.SoftLink("/layers")),
    "external or virtual": virtual,
    "external": lambda g, n: g.create_dataset(
        n, (4, 8), "float32", external=[("/etc/passwd", 0, 128)]
    ),
    "object object": lambda g, n: g.__setitem__(n, ["a"] * 8),
    "declares the shape": lambda g, n: g.create_dataset(
        n, (BOMB,), "float32", chunks=(1 << 20,), compression="gzip"
    ),
    "inside itself": lambda g, n: g.__setitem__(n, g.file["layers"]),
}


@pytest.mark.parametrize("fault", WEIGHTS)
def test_weights_that_are_elsewhere_or_nowhere_are_refused(sound, tmp_path, fault):
    plant = replaced("0", WEIGHTS[fault])
    file = rewrite(sound, tmp_path / "model.keras", weights=plant)
    with (
        bounded_memory(MEMORY),
        pytest.raises(ValueError, match=rf"refused: .*{fault}"),
    ):
        vk.load(file)


@pytest.mark.parametrize(
    ("units", "message"),
    [(BOMB, "layers declare more"), (10**8, "layers declare more"), (-1, "positive")],
)
def test_layers_that_declare_more_than_the_file_holds_are_refused(
    sound, tmp_path, units, message
):
    def plant(content):
        for name in ("hidden", "out"):
            layer_of(content, name)["config"]["units"] = units

    file = rewrite(sound, tmp_path / "model.keras", config=plant)
    with bounded_memory(MEMORY), pytest.raises(ValueError, match=message):
        vk.load(file)
    vk.load(sound)  # what bounded the variables is gone again


def test_weights_of_another_shape_are_an_error_with_the_layers_name(sound, tmp_path):
    plant = replaced("0", lambda g, n: g.__setitem__(n, np.zeros((4, 9), "float32")))
    file = rewrite(sound, tmp_path / "model.keras", weights=plant)
    with pytest.raises(ValueError, match=r"(?s)cannot be built.*hidden"):
        vk.load(file)


def test_weights_that_are_missing_are_an_error(sound, tmp_path):
    def drop(file):
        del file["layers"]

    file = rewrite(sound, tmp_path / "model.keras", weights=drop)
    with pytest.raises(ValueError, match=r"(?s)cannot be built.*hidden"):
        vk.load(file)


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5"])
def test_archives_that_would_fill_the_memory_are_refused(tmp_path, member):
    file = tmp_path / "model.keras"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        if member != "config.json":
            archive.writestr("config.json", '{"module": "keras"}')
        archive.writestr(member, bytes(2 * MEMORY))
    with (
        bounded_memory(MEMORY),
        pytest.raises(ValueError, match=f"refused: {member} would unpack to"),
    ):
        vk.load(file)


def test_a_member_twice_is_refused(sound, tmp_path):
    file = shutil.copy(sound, tmp_path / "model.keras")
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(file, "a") as archive,
    ):
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match="a member is there twice"):
        vk.load(file)


@pytest.mark.parametrize("config", ["[" * 100_000, "1", "null", "[]", '{"module": 3}'])
def test_a_config_that_is_no_model_is_refused(sound, tmp_path, config):
    file = tmp_path / "model.keras"
    with zipfile.ZipFile(sound) as old, zipfile.ZipFile(file, "w") as new:
        new.writestr("config.json", config)
        new.writestr("model.weights.h5", old.read("model.weights.h5"))
    with pytest.raises(ValueError, match=r"model\.keras (is not|cannot be built)"):
        vk.load(file)


def test_a_file_that_is_two_formats_is_read_as_neither(sound, tmp_path):
    """By the name `.h5` Keras would pass over the archive that was examined."""
    file = tmp_path / "model.h5"
    keras.saving.load_model(sound).save(file)
    with file.open("ab") as tail:
        tail.write(sound.read_bytes())
    assert zipfile.is_zipfile(file) and h5py.is_hdf5(file)
    with pytest.raises(ValueError, match=r"no \.keras file, by its name"):
        vk.load(file)


def test_addresses_are_not_fetched():
    for address in ("hf://a/b", "https://a.b/model.keras", "gs://a/model.keras"):
        with pytest.raises(FileNotFoundError, match="There is no model"):
            vk.load(address)


# ------------------------------------------------------------------- the other doors


@pytest.fixture
def hostile_run(sound, tmp_path):
    """A run folder as `train` makes them, but for its model."""

    def plant(content):
        layer_of(content, "hidden")["config"]["activation"] = CODE["another package"]

    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(_recipe("digits_lenet5"), folder / "recipe.yaml")
    rewrite(sound, folder / "model.keras", config=plant)
    return folder


def _recipe(name: str) -> Path:
    from visionkit.training.recipe_files import find_recipe

    return find_recipe(name)


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "RUN", "IMAGE"],
        ["predict", "RUN/model.keras", "IMAGE", "--explain", "--out", "OUT"],
        ["evaluate", "RUN"],
        ["export", "RUN", "--out", "OUT"],
        ["export", "RUN", "--out", "OUT", "--format", "onnx"],
    ],
    ids=lambda words: "-".join(words[:1] + words[-1:]),
)
def test_every_command_refuses_a_hostile_run(
    hostile_run, tmp_path, picture, capfd, command
):
    if "onnx" in command:  # the converter may not be installed
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
    picture(8, 8).save(tmp_path / "image.png")
    out = tmp_path / "out"
    names = {"RUN": hostile_run, "IMAGE": tmp_path / "image.png", "OUT": out}
    for name, path in names.items():
        command = [word.replace(name, str(path)) for word in command]
    assert main(command) == 1
    error = capfd.readouterr().err
    assert "names code outside Keras and visionkit" in error and "os." in error
    assert "Traceback" not in error
    assert not out.exists()


def test_the_description_of_an_export_is_only_data(tmp_path):
    for text in ("[]", "{", '{"task": 1}', "[" * 10_000, '{"task": "x", "a": NaN}'):
        folder = tmp_path / hashlib.sha256(text.encode()).hexdigest()[:8]
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(b"")
        (folder / "model.json").write_text(text)
        with pytest.raises(ValueError, match=r"model\.json is missing or incomplete"):
            vk.predict(folder, np.zeros((8, 8, 3), np.uint8))


# --------------------------------------------------------------------- checkpoints


def forge(store: CheckpointStore, step: int, members: dict[str, bytes], zip_as) -> None:
    """A generation that its own manifest vouches for."""
    path = store.save(step, {"w": np.ones(3, np.float32)}, {})
    with zipfile.ZipFile(path) as npz:
        members = {"meta.json": npz.read("meta.json"), **members}
    with zipfile.ZipFile(path, "w", zip_as) as npz:
        for name, data in members.items():
            npz.writestr(name, data)
    manifest = json.loads(path.with_suffix(".json").read_bytes())
    manifest["bytes"] = path.stat().st_size
    manifest["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(manifest))


def npy(array=None, shape=None) -> bytes:
    buffer = io.BytesIO()
    if shape is None:
        np.lib.format.write_array(buffer, array, allow_pickle=True)
    else:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, header)
        buffer.write(bytes(12))
    return buffer.getvalue()


class Evil:
    def __reduce__(self):
        return (open, ("evil", "w"))


FORGED = {
    "objects": {"w.npy": npy(np.array([Evil()], object))},
    "a bare pickle": {"w.npy": pickle.dumps(Evil())},
    "too large": {"w.npy": npy(shape=(BOMB,))},
    "too large in two": {"w.npy": npy(shape=(-(10**6), -(10**6)))},
    "cut off": {"w.npy": npy(np.ones(3))[:-1]},
    "another version": {"w.npy": b"\x93NUMPY\x03\0" + npy(np.ones(3))[8:]},
    "no header": {"w.npy": b"\x93NUMPY\x01\0\xff\xff{"},
    "a list for a description": {"meta.json": b"[]"},
    "a description without end": {"meta.json": b"[" * 100_000},
    "an unknown type": {"meta.json": b'{"state": {}, "dtypes": {"w": "evil"}}'},
    "a type of the module": {"meta.json": b'{"state": {}, "dtypes": {"w": "np"}}'},
    "a type of no array": {"meta.json": b'{"state": {}, "dtypes": {"v": "int4"}}'},
}


@pytest.mark.parametrize("fault", FORGED)
def test_a_forged_checkpoint_is_passed_over(tmp_path, monkeypatch, fault):
    monkeypatch.chdir(tmp_path)
    store = CheckpointStore(tmp_path / "checkpoints")
    store.save(1, {"w": np.ones(3, np.float32)}, {"a": 1})
    forge(store, 2, FORGED[fault], zipfile.ZIP_STORED)
    with bounded_memory(MEMORY):
        loaded = store.load()
    assert loaded.step == 1 and len(loaded.skipped) == 1
    assert "0002-0.npz" in loaded.skipped[0]
    assert not Path("evil").exists()


def test_a_checkpoint_that_unpacks_is_passed_over(tmp_path):
    store = CheckpointStore(tmp_path)
    zeros = npy(np.zeros(2 * MEMORY, np.uint8))
    forge(store, 1, {"w.npy": zeros}, zipfile.ZIP_DEFLATED)
    del zeros
    with bounded_memory(MEMORY), pytest.raises(CheckpointError, match="compressed"):
        store.load()


@pytest.mark.parametrize(
    "manifest", ["[]", "1", '{"format": 1}', "[" * 100_000, "\xff"]
)
def test_a_manifest_that_is_none_is_passed_over(tmp_path, manifest):
    store = CheckpointStore(tmp_path)
    store.save(1, {"w": np.ones(3)}, {})
    path = store.save(2, {"w": np.ones(3)}, {})
    path.with_suffix(".json").write_text(manifest, "latin-1")
    assert store.load().step == 1


def digest(model) -> str:
    arrays = model_state(model)
    return hashlib.sha256(b"".join(arrays[k].tobytes() for k in arrays)).hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[..., :-1], r"kernel: \(8, 1\) instead of \(8, 2\)"),
        (lambda a: a + 1j, "kernel: complex64 instead of float32"),
        (lambda a: a.astype(bool), "kernel: bool instead of float32"),
    ],
)
def test_a_checkpoint_that_does_not_fit_leaves_the_model_as_it_was(
    sound, change, message
):
    model = vk.load(sound)
    before, state = digest(model), model_state(model)
    name = [n for n in state if n.endswith("kernel")][1]
    first = next(n for n in state if n.endswith("kernel"))
    other = {**state, first: state[first] + 1, name: change(state[name])}
    with pytest.raises(ValueError, match=message):
        restore_model_state(model, other)
    assert digest(model) == before
    restore_model_state(model, {**state, first: state[first] + 1})
    assert digest(model) != before
