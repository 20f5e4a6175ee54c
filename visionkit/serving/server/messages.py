"""What the server knows, in the messages of `tensorflow-serving-api`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
)

from visionkit.serving.server.errors import CODES, ServingError
from visionkit.serving.server.registry import Version

# As the server's own default, values are repeated fields and not one block of bytes.
_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int8": "int_val",
    "int16": "int_val",
    "int32": "int_val",
    "uint8": "int_val",
    "uint16": "int_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "object": "string_val",
}


def status_message(versions: Iterable[Version]):
    """`GetModelStatusResponse` of some versions."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in versions:
        entry = response.model_version_status.add()
        entry.version = version.number
        entry.state = entry.State.Value(version.state)
        if version.error is not None:
            entry.status.error_code = CODES[version.error.code][0]
            entry.status.error_message = version.error.message
        else:
            entry.status.error_code = CODES["OK"][0]
    return response


def metadata_message(version: Version):
    """`GetModelMetadataResponse` of a version: its signatures."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = version.model
    response.model_spec.version.value = version.number
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in version.bundle.signatures.items():
        signatures.signature_def[name].CopyFrom(definition)
    response.metadata["signature_def"].Pack(signatures)
    return response


def read_tensor(message, most_bytes: int) -> np.ndarray:
    """A `TensorProto` as an array.

    A few bytes can say that a value fills a huge shape; so it is looked at first.

    Raises:
        ServingError: It is too large, or damaged.
    """
    try:
        dtype = tf.DType(message.dtype) if message.dtype else None
    except TypeError as error:
        text = f"A tensor is of the unknown type {message.dtype}"
        raise ServingError("INVALID_ARGUMENT", text) from error
    sizes = [dim.size for dim in message.tensor_shape.dim]
    if dtype is None or message.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
        raise ServingError("INVALID_ARGUMENT", "A tensor has no type or no shape")
    count = int(np.prod(sizes, dtype=object)) if sizes else 1
    if count * max(dtype.size or 8, 1) > most_bytes:
        text = f"A tensor of shape {sizes} is larger than {most_bytes:,} bytes"
        raise ServingError("INVALID_ARGUMENT", text)
    # One value would fill the shape; of images, that multiplies the work.
    if dtype == tf.string and len(message.string_val) != count:
        given = len(message.string_val)
        text = f"A string tensor of shape {sizes} has {given} values in string_val"
        raise ServingError("INVALID_ARGUMENT", text)
    try:
        return tf.make_ndarray(message)
    except (TypeError, ValueError) as error:
        text = f"A tensor does not fit its shape {sizes}"
        raise ServingError("INVALID_ARGUMENT", text) from error


def write_tensor(message, value: np.ndarray) -> None:
    """Fill a `TensorProto` with an array."""
    if value.dtype.name not in _FIELDS:  # half precision has no plain form
        message.CopyFrom(tf.make_tensor_proto(value))
        return
    message.dtype = tf.as_dtype(value.dtype).as_datatype_enum
    for size in value.shape:
        message.tensor_shape.dim.add(size=size)
    getattr(message, _FIELDS[value.dtype.name]).extend(value.ravel().tolist())
