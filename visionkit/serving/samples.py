"""Pictures with known content, for the gate and for warming a server up."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def sample_images(channels: int) -> list[bytes]:
    """Three smooth pictures of unequal sizes and sides: a JPEG, a PNG, a JPEG."""
    rng = np.random.default_rng(0)
    encoders = (tf.io.encode_jpeg, tf.io.encode_png, tf.io.encode_jpeg)
    sizes = ((96, 128), (150, 70), (61, 47))
    encoded = []
    for encode, size in zip(encoders, sizes, strict=True):
        coarse = rng.integers(0, 256, (5, 7, channels)).astype(np.float32)
        picture = tf.image.resize(coarse, size, "bilinear")
        encoded.append(encode(tf.cast(picture, tf.uint8)).numpy())
    return encoded


def decode_sample(picture: bytes) -> np.ndarray:
    """(H, W, C) uint8 pixels of a sample image."""
    return tf.io.decode_image(picture, expand_animations=False).numpy()
