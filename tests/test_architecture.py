"""Who may import whom, and how large things may grow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import visionkit as vk
from visionkit._registered import MODULES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "visionkit"
FILES = sorted(PACKAGE.rglob("*.py"))

# Layers from the bottom up: a part may import parts of lower layers, and itself.
LAYERS = [
    {"_version", "_quiet", "_registered", "_spelling"},
    {"types", "paste"},
    {"ops", "blocks"},
    {"backbones", "necks", "heads", "losses", "metrics", "postprocess", "visualize"},
    {"data"},
    {"tasks"},
    {"inference"},
    {"explaining", "serving"},
    {"exporting"},
    {"portable"},
    {"training"},
    {"demo"},
]
# Results plot themselves and keep masks as RLE; a head asks which backbones have a
# published top.
SIDEWAYS = {("heads", "backbones"), ("types", "visualize"), ("types", "data")}
MAY_IMPORT_TENSORFLOW = {
    "data",
    "explaining",
    "inference",
    "exporting",
    "portable",
    "serving",
    "training",
}
# The command line sits on top of everything, the package root below and above.
TOP = {"tasks/__main__.py", "tasks/commands.py", "tasks/predicting.py", "__init__.py"}
TOP |= {"tasks/porting.py"}


def part_of(file):
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file):
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def layer(part):
    return next((i for i, parts in enumerate(LAYERS) if part in parts), None)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_downwards(file):
    if str(file.relative_to(PACKAGE)) in TOP:
        return
    part = part_of(file)
    assert layer(part) is not None, f"{part} has no place in LAYERS"
    for name in imports(file):
        if not name.startswith("visionkit."):
            continue
        other = name.split(".")[1]
        allowed = (
            other == part or layer(other) < layer(part) or (part, other) in SIDEWAYS
        )
        assert allowed, f"{part} must not import {other}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_tensorflow_stays_where_it_belongs(file):
    roots = {name.partition(".")[0] for name in imports(file)}
    part, name = part_of(file), file.name
    if part not in MAY_IMPORT_TENSORFLOW or name == "arrays.py":
        # Each measured difference pays for one backend switch: the greedy loop of NMS,
        # the largest logit in a quarter and a histogram in a tenth of the time.
        allowed = {("ops", "nms.py"), ("ops", "native.py")}
        assert "tensorflow" not in roots or (part, name) in allowed
    if part == "data" and name != "arrays.py":
        assert "keras" not in roots, "keras.ops in dataset.map fails on JAX"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_files_functions_and_constructors_stay_small(file):
    text = file.read_text("utf-8")
    assert len(text.splitlines()) <= 330, "a long file usually holds two ideas"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            doc = len((ast.get_docstring(node) or "").splitlines())
            assert lines - doc <= 60, f"{node.name} has {lines - doc} lines"
            assert len(node.args.kwonlyargs) <= 8, f"{node.name}: too many keywords"


def test_help_and_list_import_neither_tensorflow_nor_keras():
    code = (
        "import sys; from visionkit.tasks.__main__ import main\n"
        "main(['list'])\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "bad = {'tensorflow', 'keras', 'albumentations'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_importing_visionkit_is_cheap():
    code = (
        "import sys, visionkit\n"
        "assert 'numpy' not in sys.modules and 'keras' not in sys.modules\n"
        "assert 'ImageClassifier' in dir(visionkit)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_keras_finds_every_class_by_name():
    """All modules that register any are listed, none of them is missing."""
    found = {
        ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        for file in FILES
        if "saving.register_keras_serializable(" in file.read_text("utf-8")
    }
    assert found == set(MODULES)


@pytest.mark.parametrize(
    "first", ["import keras, visionkit", "import visionkit, keras; visionkit.load"]
)
def test_plain_keras_loads_a_model(first, tmp_path):
    code = (
        f"import sys; {first}\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "assert model.compiled and type(model) is visionkit.ImageClassifier"
    )
    backbone = vk.build_backbone("lenet5", (28, 28))
    model = vk.ImageClassifier(backbone, num_classes=2)
    model.compile()
    model.save(tmp_path / "model.keras")
    command = [sys.executable, "-c", code, str(tmp_path / "model.keras")]
    subprocess.run(command, check=True, capture_output=True)


def test_wheel_packages_are_all_packages():
    import tomllib

    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    listed = set(config["tool"]["setuptools"]["packages"]) - {"visionkit.recipes"}
    found = {
        ".".join(("visionkit", *init.relative_to(PACKAGE).parts[:-1]))
        for init in PACKAGE.rglob("__init__.py")
    }
    assert listed == found
