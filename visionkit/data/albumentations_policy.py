"""A recipe's list of albumentations transforms, as one function of sample and seed.

For the worker processes: nothing else imports albumentations.
"""

from __future__ import annotations

import difflib
import inspect
import random
import sys

import numpy as np

from visionkit.data.mask_layers import from_layers, to_layers
from visionkit.types import VOID_CLASS

RLE_MARK = b" "
"""Between two RLE strings, of which it is no character."""

_OTHERS = ("NoOp", "OneOf", "OneOrOther", "RandomOrder", "Sequential", "SomeOf")


class Policy:
    """A list of albumentations transforms, drawn from a sample's seed alone.

    Args:
        specs: (name, options) of each. A composition such as `OneOf` lists what it
            chooses from in its option "transforms", in a recipe's form.
        targets: What is moved beside the image: "mask"; "bboxes"; "masks", which need
            "bboxes" before and "window" behind them.
        min_visible: Share of a box that must be left, or it is dropped.

    Attributes:
        spatial: Whether pixels may move, so that masks and boxes change too.
        targets: What has to be given beside the image: nothing where none moves.

    Raises:
        ValueError: A name, an option or a target that albumentations does not know.
    """

    def __init__(self, specs, targets=(), min_visible: float = 0.0):
        # albumentations.pytorch would load PyTorch for tensors nobody wants here.
        sys.modules.setdefault("albumentations.pytorch", None)
        import albumentations
        import cv2

        cv2.setNumThreads(0)
        self._library, self._cv2 = albumentations, cv2
        transforms = [self._build(name, options) for name, options in specs]
        self.spatial = any([self._moves(t, targets) for t in transforms])
        self.targets = targets if self.spatial else ()
        boxes = albumentations.BboxParams(
            "pascal_voc",
            min_visibility=min_visible,
            clip=True,
            filter_invalid_bboxes=True,
        )
        self._compose = albumentations.Compose(
            transforms,
            bbox_params=boxes if "bboxes" in self.targets else None,
            mask_interpolation=cv2.INTER_NEAREST,
        )

    def __call__(self, seed, image, **targets) -> dict[str, np.ndarray]:
        """The sample, transformed.

        Args:
            seed: Integers >= 0; the same give the same sample, whatever came before.
            image: (H, W, C) uint8.
            targets: "mask" (H, W) uint8; "bboxes" (N, 5) float32, xyxy pixels and the
                number of the row; "masks" (bytes,) uint8, the RLE strings of the first
                rows, joined by `RLE_MARK`; "window" (4,) int32, [y, x] of the image in
                that of the masks, and [height, width] of the latter.

        Returns:
            The same keys; images of any size, and the boxes that are left. Those with
            masks are tight around them, and "window" (1,) int32 is the number of masks
            that found no room in the layers.
        """
        # One pair of generators for all transforms. `set_random_seed` would give each
        # its own from the same seed, and two with p = 0.5 would always act together.
        generator = np.random.default_rng(seed)
        draws = random.Random(int(generator.integers(2**63)))
        self._compose.set_random_state(generator, draws)
        self._cv2.setRNGSeed(draws.getrandbits(31))
        inputs = dict(targets)
        if "masks" in targets:
            layers, places = _read_masks(targets["masks"], inputs.pop("window"))
            y, x = targets["window"][:2]
            window = np.s_[:, y : y + len(image), x : x + image.shape[1]]
            inputs["masks"] = np.ascontiguousarray(layers[window])
        answer = self._compose(image=image, **inputs)
        if "masks" in targets:
            answer |= _write_masks(answer["masks"], places, answer["bboxes"])
        pixels = answer["image"]
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if pixels.dtype != np.uint8 or pixels.shape[2:] != image.shape[2:]:
            raise ValueError(
                "the transforms must keep pixels uint8 and the number of channels. "
                f"Received: {pixels.dtype} {pixels.shape} for uint8 {image.shape}. "
                "Leave out transforms such as Normalize or ToFloat"
            )
        answer["image"] = pixels
        return {key: np.asarray(answer[key]) for key in ("image", *targets)}

    def _build(self, name: str, options: dict):
        library = self._library
        legal = _names(library)
        if name not in legal:
            raise ValueError(
                f"albumentations has no transform {name!r}.{_nearest(name, legal)} "
                f"Legal: {', '.join(legal)}."
            )
        cls, options = getattr(library, name), dict(options)
        parameters = dict(inspect.signature(cls).parameters)
        for key in ("strict", "seed"):
            parameters.pop(key, None)
        for key in options:
            if key not in parameters:
                raise ValueError(
                    f"`{name}` has no option {key!r}.{_nearest(key, parameters)} "
                    f"Its options are {', '.join(parameters)}."
                )
        if "fill_mask" in parameters and parameters["fill_mask"].default is not None:
            options.setdefault("fill_mask", VOID_CLASS)  # 0 would be a class
        if issubclass(cls, library.BaseCompose):
            inner = [_parse(name, item) for item in options.get("transforms") or ()]
            options["transforms"] = [self._build(*spec) for spec in inner]
        elif _is_validated(cls):
            options["strict"] = True  # without it, some mistakes are only warned of
        try:
            return cls(**options)
        except Exception as error:
            raise ValueError(
                f"`{name}`: {_message(error)}. Its options are {', '.join(parameters)}."
            ) from None

    def _moves(self, transform, targets) -> bool:
        """Whether a transform moves pixels; an error if it cannot work on samples."""
        if isinstance(transform, self._library.BaseCompose):
            return any([self._moves(inner, targets) for inner in transform.transforms])
        missing = {*transform.targets_as_params} - {"image", *targets}
        if missing:
            raise ValueError(
                f"`{type(transform).__name__}` needs {', '.join(sorted(missing))}, "
                "which the samples do not have. Leave it out."
            )
        still = (self._library.ImageOnlyTransform, self._library.NoOp)
        if isinstance(transform, still):
            return False
        lost = {*targets} - {"window"} - transform.available_keys
        if lost:
            raise ValueError(
                f"`{type(transform).__name__}` cannot move {', '.join(sorted(lost))}, "
                "which the samples have. Leave it out."
            )
        return True


def _read_masks(text: np.ndarray, window):
    """Layers and places of masks; see `mask_layers.to_layers`."""
    regions = text.tobytes().split(RLE_MARK) if len(text) else []
    return to_layers(regions, tuple(map(int, window[2:])))


def _write_masks(layers, places, boxes) -> dict[str, np.ndarray]:
    """What is left of the masks, in tight boxes; boxes without masks stay."""
    regions, tight = from_layers(np.asarray(layers), places)
    boxes = np.asarray(boxes, np.float32).reshape(-1, 5)
    number = boxes[:, 4].round().astype(int)
    masked = number < len(places)
    boxes[masked, :4] = tight[number[masked]]
    keep = [not has or bool(regions[i]) for i, has in zip(number, masked, strict=True)]
    left = [regions[i] for i in number[masked] if regions[i]]
    return {
        "bboxes": boxes[np.array(keep, bool)],
        "masks": np.frombuffer(RLE_MARK.join(left), np.uint8),
        "window": np.array([(places < 0).sum()], np.int32),
    }


def _names(library) -> list[str]:
    """The transforms of pictures and the compositions, without their base classes."""
    return [
        name
        for name, value in sorted(vars(library).items())
        if name in _OTHERS
        or (
            isinstance(value, type)
            and issubclass(value, library.BasicTransform)
            and value.__module__.startswith("albumentations.augmentations.")
            and not issubclass(value, library.Transform3D)
        )
    ]


def _is_validated(cls) -> bool:
    """Whether the constructor of a transform is one that knows `strict`."""
    owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
    return "InitSchema" in vars(owner)


def _message(error: Exception) -> str:
    """What is wrong with the options, without pydantic's addresses and dumps."""
    if not hasattr(error.__cause__, "errors"):
        return str(error)
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'together'}: {item['msg']}"
        for item in error.__cause__.errors()
    )


def _nearest(name: str, legal) -> str:
    lower = {key.lower(): key for key in legal}
    match = difflib.get_close_matches(name.lower(), lower, 1)
    return f" Did you mean {lower[match[0]]!r}?" if match else ""


def _parse(name: str, item) -> tuple[str, dict]:
    if isinstance(item, str):
        return item, {}
    if isinstance(item, dict) and len(item) == 1:
        ((inner, options),) = item.items()
        return inner, options or {}
    raise ValueError(
        f"`{name}` lists names, or dicts of one name with its options. Received: {item}"
    )


def failed_in(error: BaseException) -> str:
    """The name of the transform in which an error was raised, or an empty string."""
    from albumentations import BasicTransform

    name, trace = "", error.__traceback__
    while trace is not None:
        actor = trace.tb_frame.f_locals.get("self")
        if isinstance(actor, BasicTransform):
            name = type(actor).__name__
        trace = trace.tb_next
    return name
