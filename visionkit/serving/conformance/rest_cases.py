"""What is asked over REST. Each case is named after what it expects."""

from __future__ import annotations

import threading

from visionkit.serving.conformance.subject import (
    Mismatch,
    Skip,
    Subject,
    encoded,
    expect,
    expect_same,
)

_NO_VERSION = 987654321


def status_of_the_model(subject: Subject) -> None:
    """The served version is AVAILABLE; its number is a string."""
    versions = subject.get(subject.path).document["model_version_status"]
    served = [v for v in versions if v["version"] == str(subject.version)]
    expect(len(served) == 1, f"version {subject.version} is not listed once")
    expect(served[0]["state"] == "AVAILABLE", f"state {served[0]['state']}")
    healthy = {"error_code": "OK", "error_message": ""}
    expect(served[0]["status"] == healthy, f"status {served[0]['status']}")


def status_of_a_version(subject: Subject) -> None:
    """It lists that version alone."""
    document = subject.get(f"{subject.path}/versions/{subject.version}").document
    found = [v["version"] for v in document["model_version_status"]]
    expect(found == [str(subject.version)], f"versions {found}")


def what_is_not_there_is_404(subject: Subject) -> None:
    """Unknown models and versions, of status and predict."""
    request = {"instances": [encoded(subject.pictures[0])]}
    version = f"/versions/{_NO_VERSION}"
    subject.get("/v1/models/no_such_model").refused(404, "Could not find any versions")
    subject.get(subject.path + version).refused(404, "Could not find version")
    for path in ("/v1/models/no_such_model", subject.path + version):
        answer = subject.post(f"{path}:predict", request)
        answer.refused(404, "Servable not found for request")


def an_unknown_label_is_refused(subject: Subject) -> None:
    """It is 400, or 503 from a server that was never given any label."""
    request = {"instances": [encoded(subject.pictures[0])]}
    answer = subject.predict(request, "/labels/no_such_label")
    answer.refused(503 if answer.status == 503 else 400, "label")


def metadata_describes_the_signatures(subject: Subject) -> None:
    """Every one with names, types and shapes; batches of any size."""
    for name, signature in subject.signatures.items():
        if name == "__saved_model_init_op":
            continue
        method = signature["method_name"]
        expect(method == "tensorflow/serving/predict", f"{name} is for {method!r}")
        for kind in ("inputs", "outputs"):
            for key, info in signature[kind].items():
                sizes = [dim["size"] for dim in info["tensor_shape"]["dim"]]
                expect(sizes[:1] == ["-1"], f"{name}: {key} has shape {sizes}")


def all_formats_answer_alike(subject: Subject) -> None:
    """Rows and columns, with and without the input's name, version in the path."""
    images = [encoded(picture) for picture in subject.pictures]
    first = subject.answers({"instances": images})
    forms = {
        "named rows": {"instances": [{subject.input: image} for image in images]},
        "columns": {"inputs": images},
        "named columns": {"inputs": {subject.input: images}},
    }
    for what, body in forms.items():
        expect_same(subject.answers(body), first, what)
    version = f"/versions/{subject.version}"
    answer = subject.predict({"instances": images}, version)
    expect(answer.status == 200, f"{version}: status {answer.status}")


def answers_follow_their_images(subject: Subject) -> None:
    """The same images in the other order have the same answers in the other order."""
    images = [encoded(picture) for picture in subject.pictures]
    forth = subject.answers({"instances": images})
    back = subject.answers({"instances": images[::-1]})
    expect_same({n: v[::-1] for n, v in back.items()}, forth, "reversed")


def answers_equal_the_signature(subject: Subject) -> None:
    """Those of encoded images, batches of 1 and 3."""
    for batch in (1, 3):
        images = subject.pictures[:batch]
        expected = subject.direct("serving_default", subject.input, images)
        got = subject.answers({"instances": [encoded(image) for image in images]})
        expect_same(got, expected, f"batch of {batch}")


def pixels_equal_the_signature(subject: Subject) -> None:
    """Decoded images as lists of numbers, in rows and columns."""
    if "images" not in subject.signatures:
        raise Skip("it has no signature `images`")
    pixels = subject.pixels.tolist()
    rows = subject.answers({"instances": pixels}, "images")
    columns = subject.answers({"inputs": {"images": pixels}}, "images")
    expect_same(columns, rows, "columns")
    expect_same(rows, subject.direct("images", "images", subject.pixels), "rows")


def a_fraction_is_no_pixel(subject: Subject) -> None:
    """Integers are not cut off silently."""
    if "images" not in subject.signatures:
        raise Skip("it has no signature `images`")
    pixels = subject.pixels.tolist()
    pixels[0][0][0][0] = 1.5
    request = {"signature_name": "images", "instances": pixels}
    subject.predict(request).refused(400, "not of expected type")


def wrong_requests_are_400(subject: Subject) -> None:
    """Each with the gist of the server's text."""
    image = encoded(subject.pictures[0])
    wrong = [
        (b"", "JSON Parse error"),
        (b'{"instances": [', "JSON Parse error"),
        (b"[1]", "Is not object"),
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"instances": [image], "inputs": [image]}, "one of"),
        ({"instances": []}, "No values in"),
        ({"instances": {"a": 1}}, "to be an list"),
        ({"instances": [{"no_such_input": image}]}, "no_such_input"),
        ({"inputs": {"no_such_input": [image]}}, "Missing named input"),
        ({"instances": [17]}, "not of expected type"),
        ({"instances": [{"b64": "?"}]}, "base64"),
        ({"instances": [[image], [image, image]]}, ""),
        ({"signature_name": 1, "instances": [image]}, "'signature_name' key must be"),
        ({"signature_name": "none", "instances": [image]}, "not found in signature"),
    ]
    for body, words in wrong:
        try:
            subject.predict(body).refused(400, words)
        except Mismatch as error:
            raise Mismatch(f"{str(body)[:60]}: {error}") from error


def other_paths_are_no_answers(subject: Subject) -> None:
    """A query behind the verb, and verbs that are not there."""
    request = {"instances": [encoded(subject.pictures[0])]}
    for path in (f"{subject.path}:predict?a=1", f"{subject.path}:guess", "/v1/nothing"):
        status = subject.post(path, request).status
        expect(status in (400, 404), f"{path}: status {status}")
    status = subject.get(f"{subject.path}:predict").status
    expect(status in (400, 404, 405), f"GET of predict: status {status}")


def classify_needs_its_own_signature(subject: Subject) -> None:
    """A signature for predict is not for classify or regress."""
    for verb in ("classify", "regress"):
        answer = subject.post(f"{subject.path}:{verb}", {"examples": [{"a": 1.0}]})
        answer.refused(400)


def broken_images_are_400(subject: Subject) -> None:
    """Alone, and a batch that one of them is in."""
    good = encoded(subject.pictures[0])
    for what, image in subject.broken.items():
        for instances in ([encoded(image)], [good, encoded(image)]):
            try:
                subject.predict({"instances": instances}).refused(400)
            except Mismatch as error:
                raise Mismatch(f"{what}, {len(instances)} images: {error}") from error


def tolerant_answers_around_broken_images(subject: Subject) -> None:
    """They are marked, and the others are answered as without them."""
    if "tolerant" not in subject.signatures:
        raise Skip("it has no signature `tolerant`")
    good = encoded(subject.pictures[0])
    alone = subject.answers({"instances": [good]}, "tolerant")
    for what, image in subject.broken.items():
        body = {"instances": [good, encoded(image), good]}
        mixed = subject.answers(body, "tolerant")
        expect(mixed["image_valid"].tolist() == [1, 0, 1], f"{what} is not marked")
        for row in (0, 2):
            found = {name: value[row : row + 1] for name, value in mixed.items()}
            expect_same(found, alone, f"row {row} beside {what}")


def broken_images_do_not_spoil_others(subject: Subject) -> None:
    """Eight clients at once, every other image is broken.

    Of `tolerant`: what a server runs together in another signature fails together.
    """
    if "tolerant" not in subject.signatures:
        raise Skip("it has no signature `tolerant`")

    def answer(image: bytes) -> dict:
        return subject.answers({"instances": [encoded(image)]}, "tolerant")

    good, broken = subject.pictures, list(subject.broken.values())
    expected = [_own(answer(picture)) for picture in good]
    failures = []

    def client(number: int) -> None:
        try:
            for turn in range(6):
                index = number + turn
                found = _own(answer(good[index % len(good)]))
                expect_same(found, expected[index % len(good)], "a good image")
                valid = answer(broken[index % len(broken)])["image_valid"].tolist()
                expect(valid == [0], f"a broken image has image_valid {valid}")
        except Exception as error:  # whatever ends a client, it is not content
            failures.append(error)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    expect(not failures, f"{len(failures)} of 8 clients: {failures[:1]}")


def _own(answer: dict) -> dict:
    """An image's answer without the border that larger ones in its batch bring."""
    if "segmentation" not in answer:
        return answer
    ((height, width),) = answer["image_size"]
    return {**answer, "segmentation": answer["segmentation"][:, :height, :width]}


CASES = (
    status_of_the_model,
    status_of_a_version,
    what_is_not_there_is_404,
    an_unknown_label_is_refused,
    metadata_describes_the_signatures,
    all_formats_answer_alike,
    answers_follow_their_images,
    answers_equal_the_signature,
    pixels_equal_the_signature,
    a_fraction_is_no_pixel,
    wrong_requests_are_400,
    other_paths_are_no_answers,
    classify_needs_its_own_signature,
    broken_images_are_400,
    tolerant_answers_around_broken_images,
    broken_images_do_not_spoil_others,
)
