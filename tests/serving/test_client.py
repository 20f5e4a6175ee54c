"""A served model answers as the same SavedModel does when it is at hand."""

import base64
import contextlib
import itertools
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from mask_finder import draw_shapes
from PIL import Image

import visionkit as vk
from visionkit.serving import CallError, Client
from visionkit.serving.retries import LONGEST_DELAY, with_retries

SCENES = ((100, 333), (150, 90))
BOXES = [[30, 20, 70, 60], [10, 65, 80, 95]]


@pytest.fixture(scope="module")
def images(tmp_path_factory, picture, encode):
    """A path, bytes, pixels, what is no image, a turned photograph, a PIL image."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "scene.png").write_bytes(draw_shapes(SCENES[0], BOXES)[0])
    (folder / "no_image.jpg").write_text("no image")
    encoded, _ = draw_shapes(SCENES[1], BOXES)
    photo = picture(60, 90, seed=3)
    exif = photo.getexif()
    exif[0x0112] = 6
    return [
        str(folder / "scene.png"),
        encoded,
        np.asarray(picture(70, 50, seed=1)),
        str(folder / "no_image.jpg"),
        encode(photo, exif=exif),
        picture(41, 57, seed=2),
        encoded[:-30],
    ]


def url_of(server, scheme):
    return server.url if scheme == "http" else f"grpc://{server.grpc_target}"


def assert_same(got, expected, names=True):
    """Results field by field; floats may be written in decimals on the way."""
    for one, other in zip(got, expected, strict=True):
        assert (one.path, one.error) == (other.path, other.error)
        assert one.image_size == other.image_size
        for field in ("boxes", "scores", "probabilities"):
            a, b = getattr(one, field), getattr(other, field)
            assert (a is None) == (b is None)
            if a is not None:
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.segmentation, other.segmentation)
        assert one.masks == other.masks
        if names:
            assert one.label_names == other.label_names


@pytest.mark.parametrize(
    "name",
    [
        *("letters", "painter", "boxes", "masks"),
        *("boxes_modelgarden", "boxes_odapi", "masks_odapi"),
    ],
)
def test_answers_are_those_of_predict(saved_models, server, images, name):
    folder = saved_models[name]
    expected = vk.predict(folder, images)
    assert [result.ok for result in expected] == [1, 1, 1, 0, 1, 1, 0]
    if "boxes" in name or "masks" in name:
        assert len(expected[0].boxes) == 2  # else the test would compare nothing
    for scheme in ("http", "grpc"):
        url = url_of(server, scheme)
        with Client(url, name, description=folder) as client:
            assert_same(client.predict(images), expected)
            # However the images are packed.
            packed = client.predict(images, batch_size=2, request_bytes=900)
            assert_same(packed, expected)
        with Client(url, name, version=1) as client:
            assert_same(client.predict(images), expected, names=False)


def test_without_a_description_answers_name_what_they_found(server, images):
    with Client(server.url, "boxes") as client:
        assert client.predict(images[0])[0].label_names == ["red", "grün"]
    with Client(server.url, "boxes_odapi") as client:
        assert client.predict(images[0])[0].label_names == ["0", "1"]
    with Client(server.url, "letters") as client:
        (result,) = client.predict(images[2])
        (described,) = client_of(server).predict(images[2])
        assert result.label_names[0] == described.label_names[0]
        assert result.label_names[1:] == list(map(str, result.labels[1:]))


def client_of(server, **options):
    names = ("cat", "caf\udce9", "näher", "")
    description = {
        "task": "classification",
        "style": "visionkit",
        "class_names": names,
        "preprocessing": {"image_size": [40, 56], "resize": "center_crop"},
    }
    return Client(server.url, "letters", description=description, **options)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_wrong_request_is_raised_at_once(server, images, scheme, monkeypatch):
    def no_sleep(_):
        pytest.fail("it was tried again")

    monkeypatch.setattr(
        "visionkit.serving.client.with_retries",
        lambda call, retries: with_retries(call, retries, no_sleep),
    )
    url = url_of(server, scheme)
    with pytest.raises(CallError) as unknown:
        Client(url, "nobody").predict(images[0])
    assert unknown.value.status == {"http": 404, "grpc": "NOT_FOUND"}[scheme]
    with pytest.raises(CallError, match="7"):
        Client(url, "letters", version=7).predict(images[0])
    with pytest.raises(ValueError, match=r"semantic_segmentation .* classification"):
        Client(
            url,
            "painter",
            description={"task": "classification", "style": "visionkit"},
        ).predict(images[0])


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_status(server, scheme):
    with Client(url_of(server, scheme), "letters") as client:
        client.wait_until_ready(5)
        assert client.status() == {1: "AVAILABLE"}


# ------------------------------------------------------------ a server as we want it

PROBABILITIES = [0.25, 0.75]
SIGNATURES = {
    "tolerant": {
        "inputs": {"image_bytes": {"dtype": "DT_STRING"}},
        "outputs": {
            "probabilities": {
                "dtype": "DT_FLOAT",
                "tensor_shape": {"dim": [{"size": "-1"}, {"size": "2"}]},
            },
            "labels": {"dtype": "DT_INT32"},
            "label_names": {"dtype": "DT_STRING"},
            "image_valid": {"dtype": "DT_INT32"},
        },
    },
    "tensors": {
        "inputs": {
            "images": {
                "tensor_shape": {"dim": [{"size": s} for s in ("-1", "40", "56", "3")]}
            }
        }
    },
}


@contextlib.contextmanager
def canned(failures=()):
    """A server that refuses with `failures` first; its URL, and the batches it got."""
    failures, batches = list(failures), []

    class Canned(BaseHTTPRequestHandler):
        def do_GET(self):
            definitions = {"signature_def": {"signature_def": SIGNATURES}}
            self.answer(200, {"metadata": definitions})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            images = body["inputs"]["image_bytes"]
            if failures:
                return self.answer(failures.pop(0), {"error": "busy"})
            batches.append([len(base64.b64decode(i["b64"])) for i in images])
            count = len(images)
            outputs = {
                "probabilities": [PROBABILITIES] * count,
                "labels": [1] * count,
                "label_names": ["dog"] * count,
                "image_valid": [1] * count,
            }
            self.answer(200, {"outputs": outputs})

        def answer(self, status, content):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Canned)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}", batches
    finally:
        running.shutdown()
        running.server_close()


def test_busy_is_tried_again_and_the_rest_is_not(encode, picture, monkeypatch):
    waits = []
    monkeypatch.setattr("visionkit.serving.retries.random.uniform", lambda a, b: b)
    image = encode(picture(30, 40))
    with canned([503, 429, 503]) as (url, batches):
        client = Client(url, "dogs")
        monkeypatch.setattr(
            "visionkit.serving.client.with_retries",
            lambda call, retries: with_retries(call, retries, waits.append),
        )
        (result,) = client.predict(image)
    assert result.label_names == ["dog", "0"] and batches == [[len(image)]]
    assert waits == [0.1, 0.2, 0.4]
    for failures, status in (([400], 400), ([500], 500), ([503] * 3, 503)):
        with canned(failures) as (url, batches), pytest.raises(CallError) as error:
            Client(url, "dogs", retries=2).predict(image)
        assert error.value.status == status and not batches


def test_waits_grow_to_a_limit_and_heed_the_server():
    waits = []

    def busy():
        raise CallError("busy", 503, retriable=True, retry_after=3.0)

    with pytest.raises(CallError):
        with_retries(busy, 12, waits.append)
    assert len(waits) == 12 and waits[0] == 3.0
    assert all(3 <= wait <= LONGEST_DELAY for wait in waits)


def test_requests_hold_so_many_images_and_bytes(encode, picture):
    images = [encode(picture(30, 40, seed)) for seed in range(7)]
    large = encode(picture(300, 400))
    sizes = list(map(len, [*images, large]))
    with canned() as (url, batches):
        client = Client(url, "dogs")
        assert len(client.predict([*images, large], batch_size=3)) == 8
        assert batches == [sizes[:3], sizes[3:6], sizes[6:]]
        batches.clear()
        limit = sizes[0] + sizes[1]
        client.predict([*images, large], request_bytes=limit)
        assert [*itertools.chain(*batches)] == sizes and batches[-1] == sizes[-1:]
        assert all(sum(batch) <= limit for batch in batches[:-1])
        assert max(map(len, batches)) > 1


def test_requests_hold_so_many_pixels(encode):
    large = encode(Image.new("L", (4000, 2500)))
    wide, high = (encode(Image.new("L", size)) for size in ((9000, 90), (90, 9000)))
    with canned() as (url, batches):
        client = Client(url, "dogs")
        client.predict([large] * 12)
        assert list(map(len, batches)) == [10, 2]
        batches.clear()
        client.predict([wide] * 2 + [high] * 2)  # each would be padded to 81 megapixels
        assert list(map(len, batches)) == [2, 2]


def test_what_is_too_large_for_the_server_is_an_error_of_that_image(encode, picture):
    images = [encode(picture(30, 40, seed)) for seed in range(3)]
    with canned([413, 413]) as (url, batches):
        refused, *answered = Client(url, "dogs").predict(images)
        assert "answered 413" in refused.error and refused.path is None
        assert all(result.ok for result in answered)
        assert [*itertools.chain(*batches)] == list(map(len, images[1:]))


def test_what_grpc_finds_too_large_is_an_error_of_that_image(server, encode, picture):
    image = encode(picture(30, 40))
    with Client(url_of(server, "grpc"), "letters") as client:
        small, large = client.predict([image, image + bytes(65 << 20)])
    assert small.ok and "RESOURCE_EXHAUSTED" in large.error


def test_nobody_there_and_nobody_we_know(tmp_path):
    client = Client("http://127.0.0.1:9", "dogs", retries=0)
    with pytest.raises(CallError, match="cannot be reached") as error:
        client.status()
    assert error.value.retriable and error.value.status is None
    with pytest.raises(TimeoutError, match="not available"):
        client.wait_until_ready(0.01)
    from visionkit.serving.served import understand

    with pytest.raises(ValueError, match="not exported by"):
        understand({"serving_default": {}})


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("localhost:8501", {}, "must begin with"),
        ("http://", {}, "must begin with"),
        ("http://a", {"version": 1, "label": "b"}, "not both"),
        ("http://a", {"retries": -1}, "at least 0"),
    ],
)
def test_wrong_options_are_refused(url, options, message):
    with pytest.raises(ValueError, match=message):
        Client(url, "dogs", **options)


def test_rest_needs_neither_tensorflow_nor_keras(encode, picture, tmp_path):
    path = tmp_path / "dog.jpg"
    path.write_bytes(encode(picture(30, 40)))
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'keras', 'grpc', 'tensorflow_serving'):\n"
        "    sys.modules[name] = None  # an import of it raises ImportError\n"
        "import visionkit.serving\n"
        "assert 'numpy' not in sys.modules\n"
        "client = visionkit.serving.Client(sys.argv[1], 'dogs')\n"
        "print(client.predict(sys.argv[2])[0].to_json())\n"
    )
    with canned() as (url, _):
        command = [sys.executable, "-c", code, url, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["label_names"] == ["dog", "0"] and answer["scores"] == [0.75, 0.25]
    assert answer["image_size"] == [30, 40]
