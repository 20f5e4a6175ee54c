"""Loading refuses what is damaged or foreign, and says what to do."""

import json
import zipfile

import keras
import pytest

import visionkit as vk


def write(path, config, extra=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", "{}")
        for member in extra:
            archive.writestr(member, "")


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.keras"):
        vk.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none\.keras"):
        vk.load(tmp_path / "none.keras")


def test_foreign_modules_are_refused_before_they_are_imported(tmp_path):
    file = tmp_path / "model.keras"
    layer = {"module": "os", "class_name": "system", "registered_name": None}
    write(file, {"module": "keras", "config": {"layers": [layer]}})
    with pytest.raises(ValueError, match="outside Keras and visionkit: os"):
        vk.load(file)


def test_unexpected_members_are_refused(tmp_path):
    file = tmp_path / "model.keras"
    write(file, {"module": "keras"}, ["../evil.py"])
    with pytest.raises(ValueError, match=r"unexpected members: \.\./evil\.py"):
        vk.load(file)


def test_a_lambda_layer_is_refused(tmp_path):
    file = tmp_path / "model.keras"
    x = keras.Input((2,))
    keras.Model(x, keras.layers.Lambda(lambda t: t + 1)(x)).save(file)
    with pytest.raises((ValueError, TypeError), match=r"[Ll]ambda"):
        vk.load(file)


def test_a_truncated_file_is_called_damaged(tmp_path):
    file = tmp_path / "model.keras"
    x = keras.Input((2,))
    keras.Model(x, keras.layers.Dense(2)(x)).save(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        vk.load(file)
