"""TF Serving's gRPC interface, asked through its own stubs, which need TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence

from visionkit.serving.retries import CallError

BUSY = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
"""gRPC statuses of a server that has no room now, or no version yet."""

# A client may send 4 MB and receive 4 MB otherwise: fewer than the masks of an image.
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # they are ours, the same as for REST
    # Ours are short too: a channel that waits longer to connect would fail them all.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class GrpcTransport:
    """One model behind `grpc://` or `grpcs://`. Threads may share it.

    Args:
        address: "host:8500".
        model: Its name on the server.
        which: {}, {"version": 3} or {"version_label": "stable"}.
        timeout: Seconds for one attempt.
        headers: Sent with every request; the names in lower case.
        secure: Whether to speak TLS.

    Raises:
        ImportError: The stubs are not installed.
    """

    def __init__(
        self,
        address: str,
        model: str,
        which: dict,
        timeout: float,
        headers: dict,
        *,
        secure: bool = False,
    ):
        try:
            import grpc
            from tensorflow_serving.apis import (
                model_service_pb2_grpc,
                prediction_service_pb2_grpc,
            )
        except ImportError as error:
            raise ImportError(
                "gRPC needs the stubs of TF Serving: pip install 'visionkit[serving]'. "
                "http:// needs nothing."
            ) from error
        self.address, self.model, self.which = address, model, which
        self.timeout = timeout
        self.headers = tuple((key.lower(), value) for key, value in headers.items())
        if secure:
            credentials = grpc.ssl_channel_credentials()
            self.channel = grpc.secure_channel(address, credentials, _OPTIONS)
        else:
            self.channel = grpc.insecure_channel(address, _OPTIONS)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(
            self.channel
        )
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def predict(self, signature: str, name: str, images: Sequence[bytes]) -> dict:
        """Outputs by name, as arrays; the first dimension is the batch."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        self._address(request).signature_name = signature
        tensor = tf.make_tensor_proto(list(images), tf.string, [len(images)])
        request.inputs[name].CopyFrom(tensor)
        answer = self._ask(self.prediction.Predict, request)
        return {key: tf.make_ndarray(value) for key, value in answer.outputs.items()}

    def metadata(self) -> dict:
        """Signature -> its SignatureDef as TF Serving writes it in JSON."""
        from google.protobuf.json_format import MessageToDict
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest()
        self._address(request)
        request.metadata_field.append("signature_def")
        answer = self._ask(self.prediction.GetModelMetadata, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        plain = MessageToDict(signatures, preserving_proto_field_name=True)
        return plain["signature_def"]

    def status(self) -> list[dict]:
        """The versions, each with "version", "state" and "status"."""
        from google.protobuf.json_format import MessageToDict
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        self._address(request)
        answer = self._ask(self.models.GetModelStatus, request)
        plain = MessageToDict(answer, preserving_proto_field_name=True)
        return plain.get("model_version_status", [])

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()

    def _address(self, request):
        spec = request.model_spec
        spec.name = self.model
        if "version" in self.which:
            spec.version.value = self.which["version"]
        if "version_label" in self.which:
            spec.version_label = self.which["version_label"]
        return spec

    def _ask(self, method, request):
        import grpc

        try:
            return method(request, timeout=self.timeout, metadata=self.headers)
        except grpc.RpcError as error:
            status, message = error.code().name, error.details()
            # This room will not come, however long one waits.
            large = status == "RESOURCE_EXHAUSTED" and "larger than max" in message
            raise CallError(
                f"{self.address} answered {status} for model {self.model!r}: {message}",
                status,
                status in BUSY and not large,
                too_large=large,
            ) from error
