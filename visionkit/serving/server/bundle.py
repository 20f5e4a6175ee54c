"""One SavedModel in memory, run the way TensorFlow Serving runs it.

Through a session, as there: the tensors that a signature names are fed and fetched, the
Python objects in the SavedModel are not used, and a run can be given up in time.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
import tensorflow as tf

from visionkit.data.graph_headers import image_dimensions
from visionkit.data.headers import MAX_PIXELS, MAX_SIDE, inspect_image
from visionkit.data.image_header import BadImage
from visionkit.inference.graph import MAX_CANVAS_VALUES
from visionkit.serving.server.errors import ServingError, op_message
from visionkit.serving.server.limits import Limits
from visionkit.serving.warmup import read_warmup

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"


class Bundle:
    """A loaded and warmed-up version. Safe to be used from several threads.

    Args:
        folder: Holds `saved_model.pb`.

    Raises:
        ServingError: It cannot be loaded, or one of its warm-up requests fails.
    """

    def __init__(self, folder: Path):
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default(), _without_advice():
                meta_graph = tf.compat.v1.saved_model.load(
                    self._session, [tf.saved_model.SERVING], str(folder)
                )
            graph.finalize()
            self.signatures = dict(meta_graph.signature_def)
            for signature, inputs in read_warmup(folder):
                self.predict(signature, inputs)
        except tf.errors.OpError as error:
            self.close()
            raise ServingError("INTERNAL", op_message(error)) from error
        except Exception as error:
            self.close()
            reason = f"{type(error).__name__}: {error}"
            raise ServingError("INTERNAL", reason) from error

    def signature(self, name: str):
        """The `SignatureDef` of that name; of the default one where it is empty.

        Raises:
            ServingError: There is none, or it is not for `predict`.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            text = f'Serving signature key "{name}" not found.'
            raise ServingError("FAILED_PRECONDITION", text)
        signature = self.signatures[name]
        if signature.method_name != PREDICT_METHOD:
            text = (
                f"Expected prediction signature method_name to be {PREDICT_METHOD}. "
                f"Was: {signature.method_name}"
            )
            raise ServingError("INVALID_ARGUMENT", text)
        return signature

    def predict(
        self,
        signature: str,
        inputs: dict[str, np.ndarray],
        outputs: Collection[str] = (),
        seconds: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Run a signature.

        Args:
            signature: Its name; the default one where it is empty.
            inputs: By name; strings as object arrays of bytes.
            outputs: Which to fetch; all where it is empty.
            seconds: After which the run is given up.

        Raises:
            ServingError: The inputs are not the signature's.
            tf.errors.OpError: The graph refuses them, or takes too long.
        """
        definition = self.signature(signature)
        feeds = check_inputs(definition, inputs)
        wanted = outputs or definition.outputs
        for name in wanted:
            if name not in definition.outputs:
                text = f"output tensor alias not found in signature: {name}"
                raise ServingError("INVALID_ARGUMENT", text)
        fetches = {name: definition.outputs[name].name for name in wanted}
        options = None
        if seconds is not None:
            # 0 would mean that there is no limit.
            milliseconds = max(1, int(1000 * seconds))
            options = tf.compat.v1.RunOptions(timeout_in_ms=milliseconds)
        return self._session.run(fetches, feeds, options)

    def close(self):
        """Free the variables; no run may be under way."""
        self._session.close()


def check_names(definition, names: Collection[str]) -> None:
    """Refuse what the signature does not take, before it is unpacked.

    Raises:
        ServingError: The names are not those of the signature's inputs.
    """
    extra = sorted(set(names) - set(definition.inputs))
    missing = sorted(set(definition.inputs) - set(names))
    if extra or missing:
        sent, needed = ",".join(sorted(names)), ",".join(sorted(definition.inputs))
        raise ServingError(
            "INVALID_ARGUMENT",
            f"input size does not match signature: {len(names)}!="
            f"{len(definition.inputs)} len({{{sent}}}) != len({{{needed}}}). "
            f"Sent extra: {{{','.join(extra)}}}. "
            f"Missing but required: {{{','.join(missing)}}}.",
        )


def check_inputs(definition, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs by the names of their tensors.

    Raises:
        ServingError: Names, types or shapes are not those of the signature.
    """
    check_names(definition, inputs)
    feeds = {}
    for name, value in inputs.items():
        info = definition.inputs[name]
        dtype, shape = tf.DType(info.dtype), tf.TensorShape(info.tensor_shape)
        if tf.as_dtype(value.dtype) != dtype or not shape.is_compatible_with(
            value.shape
        ):
            raise ServingError(
                "INVALID_ARGUMENT",
                f'Input "{name}" must be {dtype.name} of shape {shape}. Received: '
                f"{tf.as_dtype(value.dtype).name} of shape {value.shape}",
            )
        feeds[info.name] = value
    return feeds


def check_size(definition, inputs: dict[str, np.ndarray], limits: Limits) -> None:
    """Refuse more rows or pixels than the limits allow, before anything is decoded.

    Raises:
        ServingError: The inputs are too large, or not the signature's.
    """
    check_inputs(definition, inputs)
    rows = max((len(v) for v in inputs.values() if v.ndim), default=0)
    if rows > limits.batch:
        text = f"At most {limits.batch} rows in a request. Received: {rows}"
        raise ServingError("INVALID_ARGUMENT", text)
    sizes = [size for value in inputs.values() for size in _sizes(value)]
    pixels = sum(height * width for height, width in sizes)
    if pixels > limits.pixels:
        text = f"At most {limits.pixels:,} pixels in a request. Received: {pixels:,}"
        raise ServingError("INVALID_ARGUMENT", text)
    canvas = rows * math.prod(map(max, zip(*sizes, strict=True)))
    values = canvas * max(map(_pixel_values, definition.outputs.values()), default=0)
    if values > MAX_CANVAS_VALUES:
        text = f"At most {MAX_CANVAS_VALUES:,} values in the answers for all pixels"
        text += f", padded to the largest image. Asked for: {values:,}"
        raise ServingError("INVALID_ARGUMENT", text)


def _pixel_values(output) -> int:
    """Numbers in an output for each pixel of the images; 0 if it is not as large."""
    sizes = [dim.size for dim in output.tensor_shape.dim]
    return abs(math.prod(sizes[3:])) if sizes[1:3] == [-1, -1] else 0


def _sizes(value: np.ndarray) -> list[tuple[int, int]]:
    """(height, width) of each image, encoded or not."""
    if value.dtype != object:
        return [value.shape[1:3]] * len(value) if value.ndim == 4 else []
    return list(map(_decoded_size, value.ravel()))


def _decoded_size(encoded: bytes) -> tuple[int, int]:
    """Of what the graph will decode; what is no image it will refuse."""
    with contextlib.suppress(BadImage):
        return inspect_image(encoded).upright_size
    # The graph may be less strict, and it decides what is decoded.
    with contextlib.suppress(tf.errors.InvalidArgumentError):
        height, width = map(int, image_dimensions(tf.constant(encoded)))
        if max(height, width) <= MAX_SIDE and height * width <= MAX_PIXELS:
            return height, width
    return 0, 0


@contextlib.contextmanager
def _without_advice():
    """Without TensorFlow's advice to load it in another way."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
