"""The table of sources is lazy, and names are checked with a hint."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from visionkit.data.sources import SOURCES, build_source
from visionkit.data.sources.digits import Digits


def test_import_costs_nothing():
    code = (
        "import sys, visionkit.data, visionkit.data.sources as s\n"
        "visionkit.data.SOURCES, visionkit.data.build_source\n"
        "heavy = {'tensorflow', 'keras', 'sklearn', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_check_does_not_import_keras_or_tensorflow():
    code = (
        "import sys, visionkit.data.check, visionkit.data.split\n"
        "sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", SOURCES)
def test_sources_resolve(name):
    module, _, attribute = SOURCES[name].partition(":")
    assert getattr(importlib.import_module(module), attribute)


def test_build_source_passes_options():
    source = build_source("digits", task="detection", split="validation", num_scenes=3)
    assert isinstance(source, Digits)
    assert len(source) == source.info.num_examples == 3


def test_build_source_names_the_nearest():
    with pytest.raises(ValueError, match=r"'image_foldr'. Did you mean 'image_folder'"):
        build_source("image_foldr", root=".")
    with pytest.raises(
        ValueError, match=r"Legal: .*image_folder, instance_folder, mask_folder, rec"
    ):
        build_source("xyz")
    with pytest.raises(
        ValueError, match=r"option of the source .digits. .*mean 'split'"
    ):
        build_source("digits", splt="train")
