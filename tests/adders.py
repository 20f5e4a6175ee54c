"""Tiny SavedModels for tests of the server: they load in no time."""

import tensorflow as tf

from visionkit.serving.publish import publish


def publish_adder(base, amount, version=None):
    """`serving_default(x: float32 [B, 2])` answers `y = x + amount` and `version`.

    `slow(x: float32 [B])` counts to x[0] before it answers `y = x`.
    """
    module = tf.Module()
    module.amount = tf.Variable(float(amount))

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, "x")])
    def add(x):
        return {"y": x + module.amount, "amount": tf.zeros_like(x[:, 0]) + amount}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    def slow(x):
        count = tf.while_loop(lambda i: i < x[0], lambda i: (i + 1.0,), (0.0,))[0]
        return {"y": x + 0.0 * count}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "data")])
    def strings(data):
        return {"size": tf.strings.length(data), "echo_bytes": data, "echo": data}

    functions = {"serving_default": add, "slow": slow, "strings": strings}

    def build(folder):
        tf.saved_model.save(module, str(folder), signatures=functions)

    return publish(base, build, version)
