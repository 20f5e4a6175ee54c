"""A process whose pipeline calls Python ends, whatever it was doing."""

import subprocess
import sys

import pytest

PROGRAM = """
import time
import tensorflow as tf
from visionkit.data.closing import end_iterators_at_exit

def slow(x):
    time.sleep(0.5)
    return x

end_iterators_at_exit()
dataset = tf.data.Dataset.range(1000).map(
    lambda x: tf.numpy_function(slow, [x], tf.int64), 4
).prefetch(2)

def train():
    iterator = iter(dataset)
    next(iterator)
    {end}

{run}
"""
UNCAUGHT = {"end": "raise ValueError('uncaught')", "run": "train()"}
CYCLE = {"end": "cycle = [iterator]; cycle.append(cycle)", "run": "train()"}


@pytest.mark.parametrize("case", [UNCAUGHT, CYCLE], ids=["uncaught", "cycle"])
def test_calls_of_python_under_way_do_not_keep_a_process_from_its_end(case):
    command = [sys.executable, "-c", PROGRAM.format(**case)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ended.returncode == (1 if case is UNCAUGHT else 0), ended.stderr
    assert ("uncaught" in ended.stderr) == (case is UNCAUGHT)
