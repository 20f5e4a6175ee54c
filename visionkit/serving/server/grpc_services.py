"""TensorFlow Serving's gRPC services over a registry, with the official stubs."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import Executor

import grpc
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
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


class Reception(grpc.aio.ServerInterceptor):
    """Takes requests in, within their time, and has threads of a pool answer them.

    No thread waits for a request that is still arriving, so slow ones cost the others
    nothing.

    Args:
        pool: Threads in which requests are read, run and answered.
        seconds: Longest time for a request to arrive.
    """

    def __init__(self, pool: Executor, seconds: float):
        self._pool = pool
        self._seconds = seconds

    async def intercept_service(self, continuation, handler_call_details):
        """The method, as one of a stream: its only message can be waited for."""
        method = await continuation(handler_call_details)
        if method is None:  # there is none of that name
            return None

        def answer(message: bytes, context) -> bytes:
            request = method.request_deserializer(message)
            return method.response_serializer(method.unary_unary(request, context))

        async def receive(_, context):
            try:
                message = await self._message(context)
                job = self._pool.submit(answer, message, context)
                return await asyncio.wrap_future(job)
            except Exception as error:
                refusal = _refusal(error)
                await context.abort(grpc.StatusCode[refusal.code], refusal.message)

        return grpc.stream_unary_rpc_method_handler(receive)

    async def _message(self, context) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                message = await context.read()
        except TimeoutError as error:
            text = f"The request did not arrive within {self._seconds:g} s"
            raise ServingError("DEADLINE_EXCEEDED", text) from error
        if message is grpc.aio.EOF:
            raise ServingError("INVALID_ARGUMENT", "There is no message in the request")
        return message


def _refusal(error: Exception) -> ServingError:
    """What the caller is told."""
    if isinstance(error, NotImplementedError):  # of the official base classes
        return ServingError("UNIMPLEMENTED", str(error))
    if isinstance(error, DecodeError):
        return ServingError("INVALID_ARGUMENT", "The message cannot be read")
    refusal = as_serving_error(error)
    if refusal.code == "INTERNAL":
        LOG.exception("A request failed", exc_info=error)
    return refusal


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`Predict` and `GetModelMetadata`; the others say that they are not there."""

    def __init__(self, registry: Registry, limits: Limits):
        self._registry = registry
        self._limits = limits

    def Predict(self, request, context):
        """Run a signature."""
        with self._registry.lease(*_spec(request)) as version:
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
        if not request.metadata_field:
            text = "GetModelMetadataRequest must specify at least one metadata_field"
            raise ServingError("INVALID_ARGUMENT", text)
        for field in request.metadata_field:
            if field != "signature_def":
                text = f"Metadata field not supported: {field}"
                raise ServingError("INVALID_ARGUMENT", text)
        with self._registry.lease(*_spec(request)) as version:
            return metadata_message(version)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """`GetModelStatus` and `HandleReloadConfigRequest`."""

    def __init__(self, registry: Registry):
        self._registry = registry

    def GetModelStatus(self, request, context):
        """The versions of a model and their states."""
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
