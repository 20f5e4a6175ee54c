"""JSON of TensorFlow Serving's REST interface, to and from arrays."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from visionkit.serving.server.errors import ServingError

_KINDS = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
_UNWRITABLE = (tf.bfloat16, tf.float16, tf.complex64, tf.complex128)
_JSON_TYPES = {
    bool: "Boolean",
    dict: "Object",
    float: "Number",
    int: "Number",
    list: "Array",
    str: "String",
    type(None): "Null",
}


def read_json(body: bytes) -> dict:
    """The request as a dict. NaN and Infinity are numbers; what follows is ignored.

    Raises:
        ServingError: It is no JSON object.
    """
    if not body.strip():
        raise _invalid("JSON Parse error: The document is empty")
    try:
        text = body.decode("utf-8-sig").lstrip()
        document, _ = json.JSONDecoder().raw_decode(text)
    except UnicodeDecodeError as error:
        reason = f"Invalid encoding in string. at offset: {error.start}"
        raise _invalid(f"JSON Parse error: {reason}") from error
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at offset: {error.pos}"
        raise _invalid(f"JSON Parse error: {reason}") from error
    except (RecursionError, ValueError) as error:
        raise _invalid("JSON Parse error: nested too deeply, or too long") from error
    if not isinstance(document, dict):
        raise _invalid(f"JSON Value: {_show(document)} Is not object")
    return document


def read_signature_name(document: dict) -> str:
    """The signature that a request names, empty if none.

    Raises:
        ServingError: It is no string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        text = "not formatted correctly. 'signature_name' key must be a string value."
        raise _invalid(f"JSON Value: {_show(document)} {text}")
    return name


def read_tensors(document: dict, inputs: Mapping) -> tuple[bool, dict[str, np.ndarray]]:
    """The arrays of a request.

    Args:
        document: The request.
        inputs: Name -> `TensorInfo` of the signature's inputs.

    Returns:
        Whether the request is in row format, and the arrays by name: strings as object
        arrays of bytes.

    Raises:
        ServingError: The request does not fit the inputs.
    """
    if "instances" in document and "inputs" in document:
        text = "Not formatted correctly expecting only one of 'inputs' or 'instances'"
        raise _invalid(f"JSON Value: {_show(document)} {text} keys to exist")
    if "instances" in document:
        return True, _from_rows(document["instances"], inputs)
    if "inputs" in document:
        return False, _from_columns(document["inputs"], inputs)
    raise _invalid("Missing 'inputs' or 'instances' key")


def write_json(outputs: Mapping[str, np.ndarray], rows: bool) -> bytes:
    """The answer, in the format of the request.

    Raises:
        ServingError: In row format, when the outputs have not one row each.
    """
    for name, value in outputs.items():
        dtype = tf.as_dtype(value.dtype)
        if dtype in _UNWRITABLE:
            text = f"Cannot encode tensor {name} of type {dtype.name} as JSON"
            raise ServingError("INVALID_ARGUMENT", text)
    if rows:
        _check_rows(outputs)
    plain = {name: _plain(name, value) for name, value in outputs.items()}
    only = len(plain) == 1
    if rows:
        columns = list(plain.values())
        answers = [
            dict(zip(plain, row, strict=True)) for row in zip(*columns, strict=True)
        ]
        document = {"predictions": columns[0] if only else answers}
    else:
        document = {"outputs": next(iter(plain.values())) if only else plain}
    # Bytes that are no UTF-8 are written as they are; so does TensorFlow Serving.
    text = json.dumps(document, ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape")


def _from_rows(instances, inputs: Mapping) -> dict[str, np.ndarray]:
    if not isinstance(instances, list):
        text = f"JSON Value: {_show(instances)} Excepting 'instances' to be an list"
        raise _invalid(f"{text}/array")
    if not instances:
        raise _invalid("JSON Value: [] No values in 'instances' array")
    named = _is_named(instances[0])
    if not named and len(inputs) > 1:
        raise _invalid(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    for index, instance in enumerate(instances):
        if _is_named(instance) != named:
            found = ("object", "value/list") if named else ("value/list", "object")
            text = f"Expecting {found[0]} but got {found[1]} at item {index}"
            raise _invalid(f"{text} of input list")
        if named and set(instance) != set(inputs):
            raise _invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object: "
                f"{_show(instance)} keys must be equal to: {','.join(sorted(inputs))}"
            )
    columns = (
        {name: [instance[name] for instance in instances] for name in inputs}
        if named
        else {next(iter(inputs)): instances}
    )
    try:
        return {n: _to_array(value, inputs[n].dtype) for n, value in columns.items()}
    except ServingError as error:
        text = f"Failed to process 'instances' list. Error: {error.message}"
        raise ServingError(error.code, text) from error


def _from_columns(value, inputs: Mapping) -> dict[str, np.ndarray]:
    if not _is_named(value):
        if len(inputs) > 1:
            raise _invalid(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        value = {next(iter(inputs)): value}
    for name in inputs:
        if name not in value:
            raise _invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _to_array(value[name], inputs[name].dtype) for name in inputs}


def _is_named(value) -> bool:
    """Whether it is an object of inputs by name, and not encoded bytes."""
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: dict) -> bool:
    return list(value) == ["b64"] and isinstance(value["b64"], str)


def _to_array(value, number: int) -> np.ndarray:
    dtype = tf.DType(number)
    try:
        # Leaves stay Python objects, so that none is converted before it is looked at.
        leaves = np.array(value, dtype=object)
    except ValueError as error:
        raise _ragged() from error
    kinds = set(map(type, leaves.ravel().tolist()))
    if list in kinds:
        raise _ragged()
    if dtype == tf.string:
        decoded = [_to_bytes(leaf) for leaf in leaves.ravel()]
        array = np.empty(len(decoded), object)
        array[:] = decoded
        return array.reshape(leaves.shape)
    kind = np.dtype(dtype.as_numpy_dtype).kind
    if kind not in _KINDS or dtype in _UNWRITABLE:
        text = f"Conversion of JSON Value: {_show(value)} to type: {dtype.name}"
        raise ServingError("UNIMPLEMENTED", text)
    if not kinds <= _KINDS[kind]:
        raise _wrong_type(leaves, _KINDS[kind], dtype)
    return _to_numbers(leaves, dtype)


def _to_numbers(leaves: np.ndarray, dtype: tf.DType) -> np.ndarray:
    """A number that the type cannot hold is refused; the server's own wraps around."""
    target = np.dtype(dtype.as_numpy_dtype)
    try:
        if target.kind in "iu":
            wide = leaves.astype(np.uint64 if dtype == tf.uint64 else np.int64)
            fits = not wide.size or dtype.min <= wide.min() <= wide.max() <= dtype.max
            narrow = wide.astype(target)
        else:
            wide = leaves.astype(np.float64)
            with np.errstate(over="ignore"):
                narrow = wide.astype(target)
            fits = bool(np.all(np.isfinite(narrow) | ~np.isfinite(wide)))
    except OverflowError:
        fits = False
    if not fits:
        text = f"Cannot convert JSON value: a number does not fit in {dtype.name}"
        raise _invalid(text)
    return narrow


def _to_bytes(leaf) -> bytes:
    if isinstance(leaf, str):
        try:
            return leaf.encode("utf-8")
        except UnicodeEncodeError as error:
            raise _invalid("JSON Value: a string holds half a surrogate") from error
    if not isinstance(leaf, dict):
        raise _wrong_type(np.array([leaf], object), {str}, tf.string)
    if not _is_base64(leaf):
        text = f"JSON Value: {_show(leaf)} not formatted correctly for base64 data"
        raise _invalid(text)
    try:
        return base64.b64decode(leaf["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid("Unable to base64 decode") from error


def _check_rows(outputs: Mapping[str, np.ndarray]):
    rows = None
    for name, value in outputs.items():
        if not value.ndim:
            raise _invalid(f"Tensor name: {name} has no shape information")
        rows = len(value) if rows is None else rows
        if len(value) != rows:
            text = f"has inconsistent batch size: {len(value)} expecting: {rows}"
            raise _invalid(f"Tensor name: {name} {text}")


def _plain(name: str, value: np.ndarray):
    if value.dtype != object:
        return value.tolist()
    if name.endswith("_bytes"):  # the suffix by which the server tells bytes from text
        texts = [{"b64": base64.b64encode(v).decode("ascii")} for v in value.ravel()]
    else:
        texts = [v.decode("utf-8", "surrogateescape") for v in value.ravel()]
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(value.shape).tolist()


def _show(value) -> str:
    """The beginning of a value, for a message."""
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _wrong_type(leaves: np.ndarray, kinds: set, dtype: tf.DType) -> ServingError:
    leaf = next(leaf for leaf in leaves.ravel() if type(leaf) not in kinds)
    return _invalid(
        f"JSON Value: {_show(leaf)} Type: {_JSON_TYPES[type(leaf)]} is not of expected "
        f"type: {dtype.name}"
    )


def _ragged() -> ServingError:
    return _invalid(
        "Encountered list at unexpected size or level: all values of a tensor must "
        "have the same shape"
    )


def _invalid(message: str) -> ServingError:
    return ServingError("INVALID_ARGUMENT", message)
