import gc
import io
import sys

import numpy as np
import pytest

_LONGEST = ("test_notebooks.py", "test_run.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The longest files first: no process shall wait for another's at the end.

    A file's tests stay together, for their fixtures; notebooks have none.
    """
    items.sort(key=lambda item: item.path.name not in _LONGEST)
    for item in items:
        alone = item.path.name == "test_notebooks.py"
        group = item.nodeid if alone else item.nodeid.split("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_make_parametrize_id(val):
    """Bytes do not name a test: made anew, they may differ in each process."""
    return "bytes" if isinstance(val, bytes) and len(val) > 20 else None


@pytest.fixture(scope="module", autouse=True)
def _free_memory():
    """Models and traced graphs of one file do not add up with those of the next."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session(free_memory=False)
    gc.collect()


@pytest.fixture(scope="session")
def classifier():
    """A small random classifier whose answers depend on what is where in the image."""
    import keras

    import visionkit as vk

    inputs = x = keras.Input((40, 56, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    # The second kernel sees a quarter of the image, so that a flip changes the answer.
    for filters, kernel, stride in ((8, 3, 2), (16, (10, 14), (10, 14))):
        x = keras.layers.Conv2D(filters, kernel, stride, "same")(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Activation("tanh")(x)
    backbone = keras.Model(inputs, {"P5": x}, name="small")
    model = vk.ImageClassifier(
        backbone, 4, dropout=0.5, class_names=("cat", "caf\udce9", "näher", "")
    )
    rng = np.random.default_rng(0)
    for weight in model.weights:
        fan_in = max(1, int(np.prod(weight.shape[:-1])))
        values = rng.normal(0, fan_in**-0.5, weight.shape)
        if "variance" in weight.path or "gamma" in weight.path:
            values = rng.uniform(0.5, 1.5, weight.shape)
        weight.assign(values)
    # Logits of mean 0 and spread 2 over smooth pictures.
    pictures = [np.asarray(_picture(40, 56, seed)) for seed in range(32)]
    logits = np.asarray(model(np.stack(pictures)))
    kernel, bias = model.weights[-2:]
    scale = 2 / logits.std(axis=0)
    kernel.assign(kernel * scale)
    bias.assign((bias - logits.mean(axis=0)) * scale)
    return model


@pytest.fixture(scope="session")
def exported(classifier, tmp_path_factory):
    """The folder of version 1, which passed the gate."""
    import visionkit as vk

    base = tmp_path_factory.mktemp("saved_models") / "small"
    return vk.export(
        classifier, base, metadata={"accuracy": np.float32(0.5), "f1": np.nan}
    )


@pytest.fixture(scope="session")
def picture():
    """`picture(height, width, seed=0)`: a smooth `PIL.Image`, no flip of itself."""
    return _picture


def _picture(height, width, seed=0):
    from PIL import Image

    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def encode():
    """`encode(image, format, **options)`: the bytes of a `PIL.Image`."""

    def make(image, format="JPEG", **options):
        options = {"quality": 95, **options} if format == "JPEG" else options
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        return buffer.getvalue()

    return make
