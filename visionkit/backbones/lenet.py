"""LeNet-5, LeCun et al., "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE, 1998, section II.B.
"""

from __future__ import annotations

import keras
from keras import layers

from visionkit.backbones.normalization import ImageNormalization
from visionkit.backbones.weights import refuse_imagenet


def lenet5(imagenet: bool = False) -> keras.Model:
    """The feature layers C1 to S4 of LeNet-5; classification only.

    Its convolutions do not pad, so that its levels are smaller than image_size / 2**n:
    32x32 gives P1 (10, 10, 16) and P2 (5, 5, 16), the feature maps of S4. Images are
    light ink on dark paper as MNIST stores them; paper becomes -0.1 and ink 1.175.

    61,706 parameters at 32x32x1 with the layers C5, F6 and 10 outputs of the paper's
    top, where the paper counts 60,000: here C3 sees all maps of S2 (the paper leaves
    connections out to save time), and S2 and S4 are plain averages (the paper gives
    each map a trainable coefficient and bias). Activations are tanh without the
    paper's scaling to 1.7159, and the output is a softmax in place of distances to
    drawn characters (RBF).
    """
    if imagenet:
        refuse_imagenet("lenet5")
    images = keras.Input((32, 32, 1), name="images", dtype="float32")
    x = ImageNormalization([20.0], [200.0], name="normalization")(images)
    x = layers.Conv2D(6, 5, activation="tanh", name="C1")(x)
    x = layers.AveragePooling2D(2, name="S2")(x)
    x = layers.Conv2D(16, 5, activation="tanh", name="C3")(x)
    x = layers.AveragePooling2D(2, name="S4")(x)
    return keras.Model(images, x, name="lenet5")
