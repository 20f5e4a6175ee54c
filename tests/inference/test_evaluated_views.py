"""Measuring with several looks at each image, against drawn boxes and masks."""

import functools
import json

import pytest
from finder import NAMES, build_finder, draw
from mask_finder import build_mask_finder

from visionkit.data.sources import build_source
from visionkit.inference.views import view_options
from visionkit.tasks.scoring import InstanceScorer
from visionkit.training.evaluation import evaluate_model

SIZE = (180, 240)
BOXES = [[(20, 30, 90, 120), (150, 60, 210, 140)], [(60, 20, 130, 100)]]


@pytest.fixture
def root(tmp_path):
    """Two drawn pictures with annotations in COCO's format, and a broken one."""
    annotations = []
    for index, boxes in enumerate(BOXES):
        (tmp_path / f"{index}.png").write_bytes(draw(SIZE, boxes))
        for label, (x1, y1, x2, y2) in enumerate(boxes):
            width, height = x2 - x1, y2 - y1
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": label + 1,
                    "bbox": [x1, y1, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
                }
            )
    (tmp_path / "2.png").write_bytes(b"none")
    files = [
        {"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]}
        for i in range(3)
    ]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    content = {"images": files, "annotations": annotations, "categories": categories}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
def test_what_all_looks_find_is_measured(task, root):
    source = build_source(
        "coco", root=str(root), annotations=str(root / "boxes.json"), task=task
    )
    model = build_finder(SIZE)
    if task == "instance_segmentation":
        model = build_mask_finder(SIZE, reach=2.0)
        model.scorer = functools.partial(
            InstanceScorer, model.class_names, model.preprocessing
        )
    views = view_options(task, None, 0.2, [0.8])
    metrics = evaluate_model(model, source, views=views)
    assert metrics["map_50"] == pytest.approx(1)
    if task == "instance_segmentation":
        assert metrics["mask_map_50"] == pytest.approx(1)
    assert (metrics["read"], metrics["used"], metrics["skipped"]) == (3, 2, 1)


def test_classifiers_look_once():
    with pytest.raises(ValueError, match="for detection and segmentation"):
        view_options("classification", None, 0.2, True)
