"""What every task shares: compiling, answering, saving."""

from __future__ import annotations

import functools
import re
import warnings

import keras
import numpy as np

from visionkit.tasks.first_device import on_first_device
from visionkit.types import Preprocessing

# Keras says so of every tf.data set that is given to `fit` with its own defaults.
warnings.filterwarnings(
    "ignore", message="`shuffle=True` was passed, but will be ignored"
)


class VisionTask(keras.Model):
    """A functional Keras model with a backbone, raw outputs and an answer.

    `model(x)` gives raw outputs (logits, deltas), which the loss reads.
    `model.predict(x)` gives answers, through `predictor`: the same layers followed by
    `postprocess`, the graph that an export serves.

    A subclass builds its graph in the constructor, hands it to this one, and defines
    `compile` and `_init_config`.

    Attributes:
        task: One of `visionkit.types.TASKS`.
        backbone: The nested `keras.Model`.
        preprocessing: `Preprocessing` that turns files into the model's input.
        class_names: Names in label order.
        postprocess: Layer from raw outputs to answers.
        started_from: What of a trained model it took over, in words; "" for nothing.
    """

    task: str
    started_from = ""
    hidden_outputs: tuple[str, ...] = ()  # raw ones that only the loss reads
    logged_scores: tuple[str, ...] = ()  # what `evaluate` adds to losses and metrics

    def __init__(
        self,
        images,
        outputs,
        *,
        backbone,
        postprocess,
        preprocessing: Preprocessing,
        class_names,
        **kwargs,
    ):
        super().__init__(inputs=images, outputs=outputs, **kwargs)
        self.backbone = backbone
        self.postprocess = postprocess
        self.preprocessing = preprocessing
        self.class_names = tuple(class_names)

    def scorer(self, source=None):
        """What measures answers with the task's real metrics; see `tasks.scoring`.

        Args:
            source: A `Source` whose own annotations are the truth. None: the targets
                that come with the images.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `scorer`.")

    @functools.cached_property
    def predictor(self) -> keras.Model:
        """Functional model from images (B, h, w, C) 0..255 to the answers.

        It shares this model's weights; it is not part of what is saved.
        """
        outputs = self.postprocess(self.output)
        return keras.Model(self.input, outputs, name=f"{self.name}_predictor")

    def predict(self, x, **kwargs):
        """Answers for images of the model's size, as a dict of NumPy arrays.

        Args:
            x: (N, h, w, C) 0..255 array, or a data set of such batches.
            **kwargs: As for `keras.Model.predict`.
        """
        return self.predictor.predict(x, **kwargs)

    def make_train_function(self, force: bool = False):
        """As Keras', with the optimizer's variables made before.

        Made within the first step, as Keras leaves it, they have TensorFlow trace the
        step a second time.
        """
        optimizer = self.optimizer
        if optimizer is not None and not optimizer.built:
            optimizer.build(self.trainable_variables)
        super().make_train_function(force)

    def evaluate(self, *args, **kwargs):
        """As `keras.Model.evaluate`; a divided model is measured on its first device.

        Divided among devices, a last batch that is not full leaves some without any
        image, which Keras, TensorFlow and JAX do not survive.
        """
        if getattr(self, "_distribute_strategy", None) is not None:
            kwargs.pop("_use_cached_eval_dataset", None)  # what `fit` cached is divided
        with on_first_device(self), warnings.catch_warnings():
            # An unreadable file makes the number of batches unknown beforehand, and
            # Keras takes the end of such data for an accident.
            warnings.filterwarnings("ignore", message="Your input ran out of data")
            return super().evaluate(*args, **kwargs)

    def predict_on_batch(self, x):
        """Answers for one batch (B, h, w, C) 0..255, as a dict of NumPy arrays."""
        # Only Keras' TensorFlow backend takes the tensors of a tf.data set here.
        if keras.backend.backend() != "tensorflow":
            x = keras.tree.map_structure(np.asarray, x)
        return self.predictor.predict_on_batch(x)

    def _init_config(self) -> dict:
        """The constructor's arguments beside those that every task has."""
        raise NotImplementedError(f"{type(self).__name__} must define `_init_config`.")

    def get_config(self):
        """The constructor's arguments, so that `load_model` gives back the task."""
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "preprocessing": self.preprocessing.get_config(),
            "class_names": list(self.class_names),
            **{name: _serialize(value) for name, value in self._init_config().items()},
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The model that `get_config` described, with fresh weights."""
        preprocessing = Preprocessing.from_config(config["preprocessing"])
        components = {
            name: keras.saving.deserialize_keras_object(value, custom_objects)
            for name, value in config.items()
            if isinstance(value, dict) and "class_name" in value
        }
        return cls(**{**config, **components, "preprocessing": preprocessing})

    def compile_from_config(self, config):
        """Compile as before saving. Keras skips this for an overridden `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)


def _serialize(value):
    """A component of a model as its config; plain values as they are."""
    if not hasattr(value, "get_config"):
        return value
    return keras.saving.serialize_keras_object(value)


def default_preprocessing(
    backbone: keras.Model, resize: str = "center_crop"
) -> Preprocessing:
    """Preprocessing for the backbone's input size, or 224x224 where it is dynamic."""
    height, width, channels = backbone.input.shape[1:]
    return Preprocessing((height or 224, width or 224), resize, channels)


def check_levels(pyramid) -> None:
    """Refuse a backbone whose output is not a dict of levels.

    Raises:
        ValueError: With the way to make it one.
    """
    if isinstance(pyramid, dict) and all(re.fullmatch(r"P\d+", k) for k in pyramid):
        return
    raise ValueError(
        "A backbone's output must be a dict of levels such as {'P5': features}. Build "
        "it with `build_backbone`, or wrap your model: "
        "`keras.Model(model.input, {'P5': model.output})`."
    )


def select_levels(pyramid: dict, levels) -> dict:
    """The levels that a model reads, in order.

    Raises:
        ValueError: The backbone lacks one.
    """
    missing = [level for level in levels if level not in pyramid]
    if missing:
        raise ValueError(
            f"The model reads the levels {', '.join(levels)}; the backbone has "
            f"{', '.join(sorted(pyramid))} and lacks {', '.join(missing)}. Take "
            "another backbone of the table."
        )
    return {level: pyramid[level] for level in levels}


def check_class_names(
    num_classes: int, class_names, *, at_least: int = 2
) -> tuple[str, ...]:
    """The names, or "0", "1", ... where none are given.

    Raises:
        ValueError: Their number is not `num_classes`, or that is less than `at_least`.
    """
    if num_classes < at_least:
        raise ValueError(
            f"`num_classes` must be at least {at_least} (background is never counted). "
            f"Received: num_classes={num_classes}"
        )
    if class_names is None:
        return tuple(str(i) for i in range(num_classes))
    if len(class_names) != num_classes:
        raise ValueError(
            f"`class_names` must have num_classes={num_classes} names. "
            f"Received: {len(class_names)} names"
        )
    return tuple(class_names)
