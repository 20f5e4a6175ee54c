"""What is asked over gRPC, with the official stubs."""

from __future__ import annotations

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from visionkit.serving.conformance.subject import (
    Mismatch,
    Subject,
    encoded,
    expect,
    expect_same,
)

_SECONDS = 120
_NO_VERSION = 987654321


def answers_equal_those_of_rest(subject: Subject) -> None:
    """And the version that answered is named."""
    response = _call(subject, _request(subject))
    spec = response.model_spec
    expect(spec.version.value == subject.version, f"version {spec.version.value}")
    expect(spec.name == subject.model, f"model {spec.name!r}")
    images = [encoded(picture) for picture in subject.pictures]
    got = {name: tf.make_ndarray(v) for name, v in response.outputs.items()}
    expect_same(got, subject.answers({"instances": images}), "gRPC")


def only_the_wanted_outputs_come(subject: Subject) -> None:
    """`output_filter`; a name that is none of them is refused."""
    wanted = sorted(subject.signatures["serving_default"]["outputs"])[0]
    request = _request(subject)
    request.output_filter.append(wanted)
    expect(list(_call(subject, request).outputs) == [wanted], "more came back")
    request.output_filter.append("no_such_output")
    _refused(subject, request, ("INVALID_ARGUMENT",))


def what_is_not_there_is_refused(subject: Subject) -> None:
    """Unknown models, versions, labels and signatures."""
    changes = (
        ({"name": "no_such_model"}, ("NOT_FOUND",)),
        ({"version": {"value": _NO_VERSION}}, ("NOT_FOUND",)),
        # The second: from a server that was never given any label.
        ({"version_label": "no_such_label"}, ("INVALID_ARGUMENT", "UNAVAILABLE")),
        ({"signature_name": "no_such_signature"}, ("FAILED_PRECONDITION",)),
    )
    for spec, codes in changes:
        request = _request(subject)
        request.MergeFrom(predict_pb2.PredictRequest(model_spec=spec))
        _refused(subject, request, codes)


def wrong_inputs_are_refused(subject: Subject) -> None:
    """A name that is missing, one too many, another type."""
    request = _request(subject)
    request.inputs["no_such_input"].CopyFrom(tf.make_tensor_proto([1.0]))
    _refused(subject, request, ("INVALID_ARGUMENT",), "Sent extra")
    del request.inputs[subject.input]
    _refused(subject, request, ("INVALID_ARGUMENT",), "Missing but required")
    request = _request(subject)
    request.inputs[subject.input].CopyFrom(tf.make_tensor_proto([1.0]))
    _refused(subject, request, ("INVALID_ARGUMENT",))


def broken_images_are_refused(subject: Subject) -> None:
    """Each kind of them, beside a good one."""
    for image in subject.broken.values():
        request = _request(subject, [subject.pictures[0], image])
        _refused(subject, request, ("INVALID_ARGUMENT",))


def metadata_names_the_signatures(subject: Subject) -> None:
    """The same as over REST."""
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = subject.model
    request.metadata_field.append("signature_def")
    with grpc.insecure_channel(subject.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.GetModelMetadata(request, timeout=_SECONDS)
    found = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(found)
    names = sorted(found.signature_def)
    expect(names == sorted(subject.signatures), f"signatures {names}")


def status_of_the_model(subject: Subject) -> None:
    """AVAILABLE; an unknown model is NOT_FOUND."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = subject.model
    with grpc.insecure_channel(subject.grpc) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        response = stub.GetModelStatus(request, timeout=_SECONDS)
        states = {v.version: v.state for v in response.model_version_status}
        available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        expect(states.get(subject.version) == available, f"states {states}")
        request.model_spec.name = "no_such_model"
        try:
            stub.GetModelStatus(request, timeout=_SECONDS)
        except grpc.RpcError as error:
            expect(error.code() is grpc.StatusCode.NOT_FOUND, f"code {error.code()}")
        else:
            raise Mismatch("an unknown model has a status")


def _request(subject: Subject, images=None):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = subject.model
    tensor = tf.make_tensor_proto(images or subject.pictures)
    request.inputs[subject.input].CopyFrom(tensor)
    return request


def _call(subject: Subject, request):
    unlimited = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(subject.grpc, options=unlimited) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return stub.Predict(request, timeout=_SECONDS)


def _refused(subject: Subject, request, codes: tuple, words: str = "") -> None:
    try:
        _call(subject, request)
    except grpc.RpcError as error:
        code = error.code().name
        expect(code in codes, f"code {code}, expected {' or '.join(codes)}")
        expect(words in error.details(), f"the error lacks {words!r}")
    else:
        raise Mismatch(f"it is answered, expected {' or '.join(codes)}")


CASES = (
    answers_equal_those_of_rest,
    only_the_wanted_outputs_come,
    what_is_not_there_is_refused,
    wrong_inputs_are_refused,
    broken_images_are_refused,
    metadata_names_the_signatures,
    status_of_the_model,
)
