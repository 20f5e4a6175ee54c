"""What a recipe and the environment say of the processes; what is wrong is refused."""

import keras
import pytest

from visionkit.training.cluster import VARIABLES, Cluster, find_cluster
from visionkit.training.recipe import load_recipe
from visionkit.training.recipe_files import RecipeError

ADDRESS = "10.0.0.1:12345"


def recipe(distribute="data_parallel", batch_size=64, **cluster):
    train = {"epochs": 1, "distribute": distribute}
    return load_recipe(
        {
            "task": "classification",
            "model": {"backbone": "lenet5", "image_size": [32, 32]},
            "data": {"source": "digits", "batch_size": batch_size},
            "train": train | ({"cluster": cluster} if cluster else {}),
        }
    )


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


def test_the_recipe_comes_before_the_environment(monkeypatch):
    monkeypatch.setenv(VARIABLES["job_addresses"], f"{ADDRESS}, 10.0.0.2:12345")
    monkeypatch.setenv(VARIABLES["num_processes"], "2")
    monkeypatch.setenv(VARIABLES["process_id"], "1")
    assert find_cluster(recipe()) == Cluster(1, 2, ADDRESS)
    own = recipe(process_id=0, heartbeat_seconds=9)
    assert find_cluster(own) == Cluster(0, 2, ADDRESS, 9)
    assert find_cluster(recipe("none")) == Cluster()


def test_one_process_needs_no_address():
    assert find_cluster(recipe()) == find_cluster(recipe(num_processes=1)) == Cluster()
    alone = Cluster()
    assert alone.writes and alone.exchange({"a": 1}) == [{"a": 1}]
    alone.check_same({"a": 1})


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"num_processes": 2}, r"no train\.cluster\.job_addresses \(KERAS_DIST.*_id"),
        ({"job_addresses": ADDRESS, "process_id": 0}, r"no train\.cluster\.num_proces"),
        ({"job_addresses": ADDRESS, "num_processes": 2}, r"no .*cluster\.process_id"),
        ({"process_id": 2}, r"process_id: found 2; .* numbered 0 to 1"),
        ({"job_addresses": "10.0.0.1"}, r"found '10\.0\.0\.1'; expected host:port"),
        ({"job_addresses": [ADDRESS] * 3}, r"found 3 addresses for 2 processes"),
        ({"batch_size": 63}, r"data\.batch_size: found 63; .*multiple of the 2 proc"),
    ],
)
def test_what_is_wrong_is_refused(cluster, message):
    whole = {"job_addresses": ADDRESS, "num_processes": 2, "process_id": 0}
    options = cluster if "no " in message else whole | cluster
    with pytest.raises(RecipeError, match=message):
        find_cluster(recipe(**options))


def test_a_wrong_variable_is_named(monkeypatch):
    monkeypatch.setenv(VARIABLES["num_processes"], "two")
    with pytest.raises(RecipeError, match=r"NUM_PROCESSES: found 'two'; .*at least 1"):
        find_cluster(recipe())


def test_another_backend_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(RecipeError, match=r"'tensorflow'\. .* KERAS_BACKEND=jax"):
        find_cluster(recipe())


def test_a_cluster_without_data_parallel_is_refused():
    with pytest.raises(RecipeError, match=r"train\.cluster is for .*found 'mirrored'"):
        recipe("mirrored", num_processes=2)


def test_processes_of_different_trainings_are_refused(monkeypatch):
    others = [{"steps done": 8, "images": 9}, {"steps done": 0, "images": 9}]
    monkeypatch.setattr(Cluster, "exchange", lambda *_: others)
    message = r"steps done: process 0 has 8, process 1 0\n.*storage that all"
    with pytest.raises(RecipeError, match=message):
        Cluster(0, 2).check_same(others[0])
