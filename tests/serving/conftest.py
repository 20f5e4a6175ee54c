import pytest


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory, classifier):
    """Name -> version 1 of a model of each task, and of each style."""
    from finder import build_finder
    from mask_finder import build_mask_finder
    from painter import build_painter

    import visionkit as vk

    base = tmp_path_factory.mktemp("served")
    finder, masks = build_finder(), build_mask_finder((120, 160))
    models = {
        "letters": (classifier, "visionkit"),
        "painter": (build_painter((60, 80)), "visionkit"),
        "boxes": (finder, "visionkit"),
        "boxes_modelgarden": (finder, "modelgarden"),
        "boxes_odapi": (finder, "odapi"),
        "masks": (masks, "visionkit"),
        "masks_odapi": (masks, "odapi"),
    }
    return {
        name: vk.export(model, base / name, style=style, gate=False)
        for name, (model, style) in models.items()
    }


@pytest.fixture(scope="session")
def server(saved_models):
    """A running development server of `saved_models`."""
    from visionkit.serving.server.server import Server

    folder = saved_models["letters"].parents[1]
    with Server(folder, port=0, grpc_port=0) as running:
        yield running
