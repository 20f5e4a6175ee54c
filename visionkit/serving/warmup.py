"""Warm-up records: requests that a server runs before it announces a version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from visionkit.inference import graph
from visionkit.inference.styles import INPUT_NAMES
from visionkit.serving.samples import decode_sample, sample_images
from visionkit.types import Preprocessing

WARMUP_FILE = "tf_serving_warmup_requests"


def warmup_requests(
    preprocessing: Preprocessing, style: str = "visionkit", more: tuple = ()
) -> dict:
    """Signature -> inputs by name, one image each, for an export of a style.

    Args:
        preprocessing: The model's.
        style: The export's.
        more: Further signatures that take encoded images.
    """
    picture = sample_images(preprocessing.channels)[0]
    resized = graph.prepare_encoded(tf.constant(picture), preprocessing)["images"]
    encoded = np.array([picture], object)
    return {
        "serving_default": {INPUT_NAMES[style]: encoded},
        "images": {"images": decode_sample(picture)[None]},
        "tensors": {"images": resized.numpy()[None]},
        **{name: {INPUT_NAMES[style]: encoded} for name in ("tolerant", *more)},
    }


def write_warmup(folder: Path, requests: dict[str, dict[str, np.ndarray]]) -> bool:
    """Write one warm-up record per signature under `assets.extra`.

    They spare the first client the wait for what is built on the first call.

    Args:
        folder: The folder that holds `saved_model.pb`.
        requests: Signature -> its inputs by name.

    Returns:
        Whether they were written: the stubs of `tensorflow-serving-api` are optional.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        return False
    path = folder / "assets.extra" / WARMUP_FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())
    return True


def read_warmup(folder: Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """(signature, its inputs by name) of each record that an export has."""
    path = Path(folder) / "assets.extra" / WARMUP_FILE
    if not path.exists():
        return []
    from tensorflow_serving.apis import prediction_log_pb2

    found = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(v) for name, v in request.inputs.items()}
        found.append((request.model_spec.signature_name, inputs))
    return found
