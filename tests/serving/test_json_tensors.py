"""JSON to arrays and back, by the rules of TensorFlow Serving's REST interface."""

import base64
import json
import math

import numpy as np
import pytest
import tensorflow as tf

from visionkit.serving.server.errors import ServingError
from visionkit.serving.server.json_tensors import read_json, read_tensors, write_json


class Info:
    def __init__(self, dtype):
        self.dtype = tf.as_dtype(dtype).as_datatype_enum


def read(document, **dtypes):
    inputs = {name: Info(dtype) for name, dtype in (dtypes or {"x": "float32"}).items()}
    return read_tensors(read_json(json.dumps(document).encode()), inputs)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", [[1, 2.5], [-3, 1e-3]]),
        ("float32", [math.inf, -math.inf]),
        ("float64", [[[0.1]]]),
        ("int32", [-(2**31), 2**31 - 1]),
        ("int64", [[2**62], [-1]]),
        ("uint8", [[0, 255]]),
        ("uint64", [2**64 - 1]),
        ("bool", [True, False]),
        ("int32", [[], []]),
    ],
)
def test_numbers_arrive_in_both_formats(dtype, value):
    expected = np.array(value, dtype)
    for key in ("instances", "inputs"):
        for wrapped in (value, None):
            if wrapped is None:
                rows = [{"x": row} for row in value]
                wrapped = rows if key == "instances" else {"x": value}
            is_row, found = read({key: wrapped}, x=dtype)
            assert is_row == (key == "instances")
            assert found["x"].dtype == expected.dtype
            np.testing.assert_array_equal(found["x"], expected)


def test_strings_are_text_or_base64():
    data = bytes(range(256))
    encoded = {"b64": base64.b64encode(data).decode()}
    _, found = read({"instances": [encoded, "näher", {"b64": ""}]}, image="string")
    assert found["image"].tolist() == [data, "näher".encode(), b""]
    _, found = read({"inputs": {"a": [encoded], "b": 7}}, a="string", b="int32")
    assert found["a"].tolist() == [data] and found["b"].shape == ()


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("float32", ["1"], "String is not of expected type: float32"),
        ("float32", [None], "Null is not of expected type"),
        ("float32", [True], "Boolean is not of expected type"),
        ("float32", [1e39], "does not fit in float32"),
        ("int32", [1.0], "Number is not of expected type: int32"),
        ("int32", [2**31], "does not fit in int32"),
        ("int64", [2**70], "does not fit in int64"),
        ("uint8", [256], "does not fit in uint8"),
        ("uint8", [-1], "does not fit in uint8"),
        ("bool", [1], "Number is not of expected type: bool"),
        ("string", [1], "Number is not of expected type: string"),
        ("string", [{"b64": "a"}], "Unable to base64 decode"),
        ("string", [{"b64": "YQ==", "c": 1}], "keys must be equal to: x"),
        ("string", ["\ud800"], "half a surrogate"),
        ("float32", [[1, 2], [3]], "same shape"),
        ("float32", [[1], 2], "same shape"),
        ("bfloat16", [1.0], "Conversion of JSON Value"),
    ],
)
def test_what_does_not_fit_is_refused(dtype, value, message):
    with pytest.raises(ServingError, match=message):
        read({"instances": value}, x=dtype)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "document is empty"),
        (b"\xff\xfe", "Invalid encoding"),
        (b'{"a": ', "JSON Parse error"),
        (b"[" * 200_000, "nested too deeply"),
        (b"1", "Is not object"),
    ],
)
def test_what_is_no_json_object_is_refused(body, message):
    with pytest.raises(ServingError, match=message) as caught:
        read_json(body)
    assert caught.value.status == 400


def test_nan_is_a_number_and_what_follows_is_ignored():
    document = read_json(b'\n{"inputs": [NaN, -Infinity]} and more')
    assert math.isnan(document["inputs"][0]) and document["inputs"][1] == -math.inf


def test_a_row_per_instance_or_a_column_per_output():
    outputs = {
        "scores": np.array([[0.1, 0.2], [0.3, 0.4]], np.float32),
        "names": np.array([b"cat", "näher".encode()], object),
        "image_bytes": np.array([b"\xff", b""], object),
    }
    rows = json.loads(write_json(outputs, rows=True))["predictions"]
    columns = json.loads(write_json(outputs, rows=False))["outputs"]
    assert [row["names"] for row in rows] == columns["names"] == ["cat", "näher"]
    assert columns["image_bytes"] == [{"b64": "/w=="}, {"b64": ""}]
    found = np.array([row["scores"] for row in rows], np.float32)
    np.testing.assert_array_equal(found, outputs["scores"])
    np.testing.assert_array_equal(np.float32(columns["scores"]), outputs["scores"])
    one = {"scores": outputs["scores"]}
    assert list(json.loads(write_json(one, rows=True))) == ["predictions"]
    assert json.loads(write_json(one, rows=True))["predictions"] == columns["scores"]
    odd = {"a": np.zeros(2), "b": np.zeros(3)}
    with pytest.raises(ServingError, match="inconsistent batch size"):
        write_json(odd, rows=True)
    assert b'"\xe9"' in write_json({"n": np.array([b"\xe9"], object)}, rows=False)
