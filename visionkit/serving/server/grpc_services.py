"""TensorFlow Serving's gRPC services over a registry, with the official stubs."""

from __future__ import annotations

import contextlib
import math

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from visionkit.serving.server.bundle import DEFAULT_SIGNATURE, check_names, check_size
from visionkit.serving.server.errors import CODES, ServingError, as_serving_error
from visionkit.serving.server.limits import Limits
from visionkit.serving.server.messages import (
    metadata_message,
    read_tensor,
    status_message,
    write_tensor,
)
from visionkit.serving.server.registry import LOG, Registry
from visionkit.serving.server.sources import read_config


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`Predict` and `GetModelMetadata`; the others say that they are not there."""

    def __init__(self, registry: Registry, limits: Limits):
        self._registry = registry
        self._limits = limits

    def Predict(self, request, context):
        """Run a signature."""
        with _refusing(context), self._registry.lease(*_spec(request)) as version:
            signature = request.model_spec.signature_name
            # What is unknown is refused before it is unpacked.
            definition = version.bundle.signature(signature)
            check_names(definition, request.inputs)
            most = self._limits.message_bytes
            inputs = {k: read_tensor(v, most) for k, v in request.inputs.items()}
            check_size(definition, inputs, self._limits)
            seconds = min(self._limits.seconds, _remaining(context))
            outputs = version.bundle.predict(
                signature, inputs, request.output_filter, seconds
            )
            response = predict_pb2.PredictResponse()
            response.model_spec.name = version.model
            response.model_spec.version.value = version.number
            response.model_spec.signature_name = signature or DEFAULT_SIGNATURE
            for name, value in outputs.items():
                write_tensor(response.outputs[name], value)
            return response

    def GetModelMetadata(self, request, context):
        """The signatures of a version."""
        with _refusing(context):
            if not request.metadata_field:
                text = "GetModelMetadataRequest must specify at least one"
                raise ServingError("INVALID_ARGUMENT", f"{text} metadata_field")
            for field in request.metadata_field:
                if field != "signature_def":
                    text = f"Metadata field not supported: {field}"
                    raise ServingError("INVALID_ARGUMENT", text)
            with self._registry.lease(*_spec(request)) as version:
                return metadata_message(version)
        return get_model_metadata_pb2.GetModelMetadataResponse()


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """`GetModelStatus` and `HandleReloadConfigRequest`."""

    def __init__(self, registry: Registry):
        self._registry = registry

    def GetModelStatus(self, request, context):
        """The versions of a model and their states."""
        with _refusing(context):
            return status_message(self._registry.status(*_spec(request)))

    def HandleReloadConfigRequest(self, request, context):
        """Serve the models of another configuration."""
        response = model_management_pb2.ReloadConfigResponse()
        try:
            sources = read_config(request.config)
            if request.config.WhichOneof("config") != "model_config_list":
                raise ValueError("Only a model_config_list is supported")
            self._registry.reconfigure(sources)
        except (ServingError, ValueError) as error:
            code = getattr(error, "code", "INVALID_ARGUMENT")
            response.status.error_code = CODES[code][0]
            response.status.error_message = str(error)
        return response


def _spec(request) -> tuple[str, int | None, str]:
    """Model, number and label that a request names."""
    spec = request.model_spec
    if not spec.name:
        raise ServingError("INVALID_ARGUMENT", "Missing ModelSpec")
    number = spec.version.value if spec.HasField("version") else None
    return spec.name, number, spec.version_label


def _remaining(context) -> float:
    """Seconds that the caller still waits.

    Raises:
        ServingError: It waits no more.
    """
    seconds = context.time_remaining()
    if seconds is None:
        return math.inf
    if seconds <= 0:
        text = "The deadline passed before the model could run"
        raise ServingError("DEADLINE_EXCEEDED", text)
    return seconds


@contextlib.contextmanager
def _refusing(context):
    """Errors within it end the call with their code."""
    try:
        yield
    except Exception as error:
        refusal = as_serving_error(error)
        if refusal.code == "INTERNAL":
            LOG.exception("A request failed", exc_info=error)
        context.abort(grpc.StatusCode[refusal.code], refusal.message)
