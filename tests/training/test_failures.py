"""Errors of the runtime are told in a recipe's words."""

import types

import pytest
import tensorflow as tf

from visionkit.training.cluster import Cluster
from visionkit.training.failures import (
    DataPipelineError,
    OutOfMemoryError,
    ProcessLostError,
    explained,
)
from visionkit.training.recipe import load_recipe


@pytest.fixture(scope="module")
def session():
    recipe = load_recipe("digits_lenet5", ["data.batch_size=7"])
    cluster = Cluster(process=1, processes=2)
    return types.SimpleNamespace(
        phases=[recipe], phase=0, folder="runs/it", cluster=cluster
    )


def raise_in_pipeline():
    def broken(index):
        raise KeyError("photo 3.jpg") if index == 3 else ValueError("no: 4.jpg")

    def call(index):
        return tf.numpy_function(broken, [index], tf.int64)

    list(tf.data.Dataset.range(3, 5).map(call, tf.data.AUTOTUNE).batch(2).prefetch(1))


def run_out_of_memory():  # a real one waits for ten seconds
    text = "{{node x}} OOM when allocating tensor with shape[7,9] and type float"
    raise tf.errors.ResourceExhaustedError(None, None, text)


def run_out_of_heap():
    [None] * 2**61


def fill_the_disk(path="/dev/full"):
    tf.io.write_file(path, "x" * 100_000)


def lose_a_process():
    kind = type("JaxRuntimeError", (RuntimeError,), {"__module__": "jax.errors"})
    raise kind("UNKNOWN: Gloo all-reduce failed: Connection reset by peer")


def fail():
    raise ArithmeticError("a mistake of ours")


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (raise_in_pipeline, DataPipelineError, r"^KeyError: 'photo 3\.jpg'$"),
        (
            run_out_of_memory,
            OutOfMemoryError,
            "of 7 images of 32x32 .* data.batch_size",
        ),
        (run_out_of_heap, OutOfMemoryError, "runs/it are as they were"),
        (fill_the_disk, OSError, "No space to write in runs/it: .*/dev/full"),
        (lose_a_process, ProcessLostError, "Process 1 of 2 .*--resume.*runs/it"),
        (fail, ArithmeticError, "a mistake of ours"),
    ],
)
def test_what_the_runtime_says_becomes_what_to_do(session, work, error, message):
    with pytest.raises(error, match=message) as caught, explained(session):
        work()
    assert "Traceback" not in str(caught.value) and "{{" not in str(caught.value)
