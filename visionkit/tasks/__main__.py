"""The command line: one program, the same verbs for every task.

`python -m visionkit.tasks VERB ...`, or `visionkit VERB ...`. Exit status: 0 done,
1 the run failed, 2 wrong usage, a wrong recipe or a path that does not fit, 3 the loss
is no longer a number, 128 + n stopped by signal n.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings

from visionkit._version import __version__
from visionkit.types import PORTABLE_FORMATS, STYLES

_VERBS = {
    "list": "show models, backbones, recipes, sources, augmentations or losses",
    "new": "find out the format of a data set and print a complete recipe for it",
    "check": "examine a recipe's data: broken files, duplicates, leaks, imbalance",
    "train": "train a recipe into a run folder",
    "evaluate": "measure a run on its validation data",
    "predict": "answer images with a run, a SavedModel, a .tflite or .onnx file",
    "export": "write a run as a SavedModel for TensorFlow Serving",
    "serve": "answer as TensorFlow Serving does, for development",
    "kit": "write what the official server image needs: config, compose, Kubernetes",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="python -m visionkit.tasks",
        description="Train, measure, use and export vision models on Keras 3.",
        epilog="`VERB --help` tells more. A run folder holds all that a training made.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add = {v: verbs.add_parser(v, help=h, description=h) for v, h in _VERBS.items()}
    _add_data_verbs(add)
    _add_model_verbs(add)
    _add_predict(add)
    _add_serve(add["serve"])
    _add_kit(add["kit"])
    return parser


_OVERRIDES = {
    "nargs": "*",
    "metavar": "key=value",
    "help": "override a recipe key by its dotted path, e.g. train.epochs=5",
}

_EVALUATED = """override a key of data, e.g. data.batch_size=1, or measure a DeepLab at
another output stride, e.g. model.output_stride=8"""


def _add_data_verbs(add) -> None:
    kinds = ("models", "backbones", "recipes", "sources", "augmentations", "losses")
    add["list"].add_argument("kind", nargs="?", choices=kinds, help="default: all")

    add["new"].add_argument("task", help="e.g. classification")
    add["new"].add_argument("--data", required=True, metavar="DIR")
    add["new"].add_argument("--model", metavar="NAME", help="default: the task's first")
    add["new"].add_argument("--backbone", metavar="NAME", default="mobilenet_v2")

    add["check"].add_argument("recipe", metavar="RECIPE|RUN")
    add["check"].add_argument("overrides", **_OVERRIDES)
    add["check"].add_argument(
        "--deep", action="store_true", help="decode every image, not only its header"
    )
    add["check"].add_argument("--json", metavar="FILE", help="write the findings")
    add["check"].add_argument(
        "--html", metavar="FILE", help="write the findings as a page with thumbnails"
    )

    add["train"].add_argument("recipe", metavar="RECIPE|RUN")
    add["train"].add_argument("overrides", **_OVERRIDES)
    add["train"].add_argument(
        "--resume", action="store_true", help="go on where --out, or RUN, stopped"
    )
    add["train"].add_argument(
        "--force",
        action="store_true",
        help="with --resume: though the recipe or the data are not what they were",
    )
    add["train"].add_argument(
        "--out", metavar="RUN", help="default: runs/<name>-<time>"
    )


def _add_predict(add) -> None:
    add["predict"].add_argument("model", metavar="RUN|SAVED_MODEL|FILE")
    add["predict"].add_argument(
        "images", nargs="+", metavar="IMAGE", help="files, folders or quoted globs"
    )
    add["predict"].add_argument("--out", metavar="DIR", help="write annotated pictures")
    add["predict"].add_argument(
        "--explain",
        nargs="?",
        const="grad_cam",
        choices=("grad_cam", "eigen_cam"),
        help="write pictures of where the model looks too (default: grad_cam)",
    )
    add["predict"].add_argument(
        "--level", metavar="P4", help="level of the backbone that --explain looks at"
    )
    add["predict"].add_argument("--json", metavar="FILE", help="write the answers")
    add["predict"].add_argument(
        "--coco",
        metavar="FILE",
        help="write boxes, and masks as RLE, in the format of COCO's results, with "
        "file and class names",
    )
    add["predict"].add_argument(
        "--proposals",
        metavar="FILE",
        help="write the regions that a Faster R-CNN's first stage proposes",
    )
    add["predict"].add_argument(
        "--score",
        type=float,
        help="leave out answers below it (of pixels: classes of a smaller share of "
        "the image); default 0, for boxes 0.25",
    )

    add["predict"].add_argument(
        "--probabilities",
        action="store_true",
        help="write those of each pixel too, NAME.probabilities.npz in --out",
    )
    add["predict"].add_argument("--batch-size", type=int, metavar="IMAGES")
    _add_views(add["predict"])


def _add_views(verb) -> None:
    """How often an image is looked at."""
    verb.add_argument(
        "--tile", type=int, metavar="PIXELS", help="look at tiles of this side"
    )
    verb.add_argument(
        "--overlap", type=float, default=0.2, help="share of a tile that two see"
    )
    verb.add_argument(
        "--tta", action="store_true", help="look at mirrored and zoomed images too"
    )


def _add_model_verbs(add) -> None:
    add["evaluate"].add_argument("run", metavar="RUN")
    add["evaluate"].add_argument("overrides", **_OVERRIDES | {"help": _EVALUATED})
    add["evaluate"].add_argument("--json", metavar="FILE", help="write the metrics")
    _add_views(add["evaluate"])

    add["export"].add_argument("run", metavar="RUN")
    add["export"].add_argument(
        "--out", metavar="DIR", help="default: saved_models/<recipe name>"
    )
    add["export"].add_argument("--version", type=int, metavar="N", help="default: next")
    add["export"].add_argument(
        "--style",
        choices=STYLES,
        help="names and units of a detector's answers; default: the recipe's",
    )
    add["export"].add_argument(
        "--no-gate", action="store_true", help="publish without checking the export"
    )
    add["export"].add_argument(
        "--format",
        default="saved_model",
        choices=("saved_model", *PORTABLE_FORMATS),
        help="default: saved_model; the others are measured on the validation data",
    )
    add["export"].add_argument(
        "--max-drop",
        type=float,
        default=0.01,
        metavar="D",
        help="what LiteRT and ONNX may lose of the metric (default: 0.01)",
    )


def _add_serve(serve) -> None:
    serve.add_argument(
        "models",
        metavar="MODELS_DIR|VERSION_DIR",
        help="a folder of models, a model, a version, or a models.config",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on")
    serve.add_argument("--port", type=int, default=8501, help="of REST; 0: a free one")
    serve.add_argument("--grpc-port", type=int, default=8500, help="of gRPC")
    serve.add_argument(
        "--timeout", type=float, default=30, metavar="S", help="for a request"
    )
    serve.add_argument(
        "--max-body", type=float, default=28, metavar="MB", help="of a REST request"
    )
    serve.add_argument(
        "--max-batch", type=int, default=64, metavar="ROWS", help="in a request"
    )
    serve.add_argument(
        "--max-requests", type=int, default=256, metavar="N", help="under way at once"
    )


def _add_kit(kit) -> None:
    kit.add_argument(
        "models",
        nargs="+",
        metavar="DIR",
        help="a folder of models, a model, or one or two versions, the newer one last",
    )
    kit.add_argument("--out", required=True, metavar="DIR", help="e.g. deployment")
    kit.add_argument(
        "--canary",
        action="store_true",
        help="label the newer version canary, and the older one stable",
    )
    kit.add_argument(
        "--batch", type=int, default=16, help="images that the server runs at once"
    )
    kit.add_argument("--cpus", type=int, default=2, help="cores of a server")
    kit.add_argument("--gpu", action="store_true", help="the server has a GPU")
    kit.add_argument("--image", help="of the server; default the official one")
    kit.add_argument(
        "--allow-namespace",
        dest="namespaces",
        action="append",
        default=[],
        metavar="NAME",
        help="its pods may ask too, e.g. the gateway's; may be repeated",
    )


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = _parse(argv)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    from visionkit.serving.server import command as serving
    from visionkit.tasks import commands, predicting
    from visionkit.training.recipe_files import RecipeError

    try:
        modules = {"predict": predicting, "serve": serving}
        module = modules.get(arguments.verb, commands)
        return getattr(module, f"{arguments.verb}_command")(arguments) or 0
    except RecipeError as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:
        status = getattr(error, "exit_status", 1)
        expected = isinstance(error, (OSError, ValueError, RuntimeError))
        expected |= hasattr(error, "exit_status")
        if isinstance(error, (FileNotFoundError, FileExistsError, NotADirectoryError)):
            status = 2  # most often a path on the command line or in the recipe
        if not expected or os.environ.get("VISIONKIT_TRACEBACK"):
            import traceback

            traceback.print_exc()
        return _fail(error, status)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments, also where options stand between the last positional ones.

    argparse takes `RUN --resume key=value` apart otherwise and refuses the last word.
    """
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    field = "images" if arguments.verb == "predict" else "overrides"
    if rest and (not hasattr(arguments, field) or any(r[0] == "-" for r in rest if r)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    smaller = arguments.verb == "export" and arguments.format != "saved_model"
    if smaller and (arguments.style or arguments.no_gate):
        parser.error("--style and --no-gate are about a SavedModel alone")
    if arguments.verb == "train" and arguments.force and not arguments.resume:
        parser.error("--force is about --resume")
    if arguments.verb == "predict" and arguments.explain and not arguments.out:
        parser.error("--explain writes pictures: say where with --out DIR")
    if arguments.verb == "predict" and arguments.probabilities and not arguments.out:
        parser.error("--probabilities writes files: say where with --out DIR")
    if rest:
        setattr(arguments, field, [*getattr(arguments, field), *rest])
    return arguments


def _fail(error: object, status: int) -> int:
    text = str(error) or type(error).__name__
    sys.stderr.buffer.write(f"error: {text}\n".encode("utf-8", "backslashreplace"))
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
