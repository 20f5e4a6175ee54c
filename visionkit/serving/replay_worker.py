"""Runs a SavedModel in a bare process: `replay_worker.py SAVED_MODEL WORK_FOLDER`.

It is started as a script and imports nothing of visionkit, because a server has
nothing of it. It reads `plan.json` and the inputs from the work folder, writes the
answers beside each input, and `failures.json` last.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

FORBIDDEN = ("keras", "tf_keras", "visionkit", "cv2", "albumentations")


def main(folder: str, work: str):
    """Answer every case in `work` with the SavedModel in `folder`."""
    for name in FORBIDDEN:
        sys.modules[name] = None  # An import of it raises ImportError.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    import numpy as np
    import tensorflow as tf

    signatures = tf.saved_model.load(folder).signatures
    failures = []
    for index, (signature, name) in enumerate(
        json.loads(Path(work, "plan.json").read_text())
    ):
        case = Path(work, str(index))
        if (case / "input.npy").exists():
            value = np.load(case / "input.npy", allow_pickle=False)
        else:
            value = [file.read_bytes() for file in sorted(case.glob("*.image"))]
        try:
            answers = signatures[signature](**{name: tf.constant(value)})
        except (tf.errors.OpError, KeyError, TypeError, ValueError) as error:
            failures.append((signature, _message(error)))
            continue
        # Strings come back as objects, which cannot be stored without pickle.
        arrays = {k: v.numpy() for k, v in answers.items()}
        plain = {
            k: v.astype("S") if v.dtype == object else v for k, v in arrays.items()
        }
        np.savez(case / "answers.npz", **plain)
    failures += _warmup_failures(folder, signatures)
    Path(work, "failures.json").write_text(json.dumps(failures))


def _warmup_failures(folder: str, signatures) -> list[tuple[str, str]]:
    """A record that fails would keep a server from loading the version."""
    import tensorflow as tf

    file = Path(folder, "assets.extra", "tf_serving_warmup_requests")
    if not file.exists():
        return []
    from tensorflow_serving.apis import prediction_log_pb2

    failures = []
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        signature = request.model_spec.signature_name
        inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
        try:
            signatures[signature](**inputs)
        except (tf.errors.OpError, KeyError, TypeError, ValueError) as error:
            failures.append((f"warm-up of {signature}", _message(error)))
    return failures


def _message(error: Exception) -> str:
    """On one line; TensorFlow says what happened last, behind the trace."""
    return " ".join(str(error).split())[-300:]


if __name__ == "__main__":
    main(*sys.argv[1:])
