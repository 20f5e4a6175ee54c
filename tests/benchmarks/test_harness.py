"""The harness of the benchmarks: ratios, rounds that do not count, missing peers."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import goals, harness, peers, probe, profiles
from benchmarks.goals import Ratio, at_least, at_most
from benchmarks.harness import Bench, Side, UnequalWork
from benchmarks.registry import BENCHES, MORE_CORES
from benchmarks.table import write_profiles, write_table

ROOT = Path(__file__).parents[2]
STEADY = {"GFLOP/s": 80.0, "MP/s": 150.0, "GB/s": 18.0}


@pytest.fixture
def no_probe(monkeypatch):
    monkeypatch.setattr(harness, "measure_machine", lambda: STEADY)


def times_of(monkeypatch, *rounds):
    """Lets each call of `_measure` give the next of these seconds."""
    values = iter(np.ravel(rounds))
    monkeypatch.setattr(harness, "_measure", lambda side, repeats: next(values))


def sides():
    return Side("visionkit", lambda: None), [Side("peer", lambda: None)]


def test_ratio_of_medians_of_proportional_times_is_exact():
    theirs = np.array([1.0, 1.2, 0.9, 1.1, 5.0, 1.0])
    for rounds in (6, 3):
        ratio = goals.ratio_of_medians(0.5 * theirs[:rounds], theirs[:rounds])
        assert (ratio.value, ratio.low, ratio.high) == (0.5, 0.5, 0.5)
        assert ratio.rounds == rounds


def test_ratio_of_medians_interval_holds_the_ratio_and_grows_with_noise():
    rng = np.random.default_rng(1)
    calm, wild = (
        goals.ratio_of_medians(
            2 + noise * rng.standard_normal(15), 1 + noise * rng.standard_normal(15)
        )
        for noise in (0.01, 0.1)
    )
    for ratio in (calm, wild):
        assert ratio.low <= ratio.value <= ratio.high
        assert ratio.value == pytest.approx(2, rel=0.2)
    assert wild.high - wild.low > 3 * (calm.high - calm.low)


def test_ratio_of_few_rounds_is_given_with_its_range():
    ratio = goals.ratio_of_medians([1, 2, 3], [2, 2, 2])
    assert str(ratio) == "1.000 [min..max 0.500..1.500]"
    assert str(goals.ratio_of_medians([1] * 6, [2] * 6)) == "0.500 [0.500, 0.500]"


@pytest.mark.parametrize(
    ("goal", "ratio", "verdict"),
    [
        (at_most(0.8), (0.7, 0.6, 0.75), "reached"),
        (at_most(0.8), (0.7, 0.6, 0.85), "reached, open"),
        (at_most(0.8), (0.9, 0.75, 1.0), "not reached, open"),
        (at_most(0.8), (0.9, 0.85, 1.0), "NOT REACHED"),
        (at_least(0.8), (0.9, 0.85, 1.0), "reached"),
        (at_least(0.8), (0.9, 0.75, 1.0), "reached, open"),
        (at_least(0.8), (0.7, 0.6, 0.75), "NOT REACHED"),
    ],
)
def test_goal_verdict(goal, ratio, verdict):
    assert goal.verdict(Ratio(*ratio, rounds=7)) == verdict


@pytest.mark.parametrize(
    ("goal", "ratio", "verdict"),
    [
        (at_most(0.9), (0.5, 0.4, 0.59), "reached"),
        (at_most(0.9), (0.5, 0.4, 0.61), "reached, open"),
        (at_most(0.9), (1.3, 1.2, 1.4), "not reached, open"),
        (at_most(0.9), (1.5, 1.36, 1.6), "NOT REACHED"),
        (at_least(2), (3.5, 3.1, 4), "reached"),
        (at_least(2), (3.5, 2.9, 4), "reached, open"),
        (at_least(2), (1, 0.9, 1.4), "not reached, open"),
        (at_least(2), (1, 0.9, 1.3), "NOT REACHED"),
    ],
)
def test_verdict_of_few_rounds_is_open_unless_they_are_far(goal, ratio, verdict):
    assert goal.verdict(Ratio(*ratio, rounds=5)) == verdict


@pytest.mark.parametrize("goal", [at_most(1), at_least(1)])
def test_verdict_of_two_rounds_is_always_open(goal):
    for value in (1e-3, 1e3):
        assert goal.verdict(Ratio(value, value, value, rounds=2)).endswith("open")


def test_quiet_rounds_drops_those_with_one_speed_far_below_the_median():
    probes = [dict(STEADY) for _ in range(5)]
    probes[1]["MP/s"] *= 0.84
    probes[3]["GB/s"] *= 0.86
    assert probe.quiet_rounds(probes).tolist() == [True, False, True, True, True]


def test_compare_leaves_out_a_slow_round_and_makes_another(monkeypatch):
    probes = iter([STEADY, {**STEADY, "GFLOP/s": 30.0}, STEADY, STEADY])
    monkeypatch.setattr(harness, "measure_machine", lambda: next(probes))
    times_of(monkeypatch, [1, 2], [50, 1], [1, 2], [1, 2])
    bench = Bench("X", rounds=3)
    kept = bench.compare("it", *sides(), {"peer": at_most(0.6)}, warm_ups=0)
    assert kept["visionkit"].tolist() == [1, 1, 1]
    (row,) = bench.rows
    assert row.ratio == "0.500 [min..max 0.500..0.500]"
    assert row.verdict == "reached, open"
    assert row.rounds == "3 of 4"


def test_compare_by_work_and_by_speed(monkeypatch, no_probe):
    times_of(monkeypatch, [[2, 1]] * 3)
    ours, theirs = Side("visionkit", None, work=4), Side("peer", None, work=1)
    bench = Bench("X", rounds=3)
    goals = {"peer": at_least(1.5)}
    bench.compare("it", ours, [theirs], goals, unit="img", warm_ups=0)
    assert bench.rows[0].ratio.startswith("2.000")
    assert bench.rows[0].ours.startswith("2 img/s")


def test_compare_in_two_units(monkeypatch, no_probe):
    times_of(monkeypatch, [[4, 2]] * 6)
    ours, theirs = (
        Side(name, None, work=work, explain=lambda name=name: [name])
        for name, work in (("visionkit", 16), ("peer", 4))
    )
    bench = Bench("X", rounds=6)
    peer, goal = [theirs], {"peer": at_most(0.6)}
    bench.compare("it", ours, peer, goal, also="GFLOP", warm_ups=0)
    raw, per_work = bench.rows
    assert raw.ratio.startswith("2.000")
    assert raw.ours.startswith("4 s (")
    assert per_work.ratio.startswith("0.500")
    assert per_work.theirs.startswith("500 ms/GFLOP")
    assert [row.verdict for row in bench.rows] == ["NOT REACHED", "reached"]
    assert bench.profiles == ["## X: it", "", "visionkit", "peer"]


def test_before_and_after_each_run(no_probe):
    calls = []
    side = Side(
        "visionkit",
        lambda: calls.append("run"),
        before=lambda: calls.append("before"),
        after=lambda: calls.append("after"),
    )
    Bench("X", rounds=2).compare("it", side, [], warm_ups=1)
    assert calls == ["before", "run", "after"] * 3


def test_compare_ends_after_its_time_with_fewer_rounds(no_probe):
    bench = Bench("X", rounds=7)
    kept = bench.compare("it", *sides(), warm_ups=0, seconds=0)
    assert len(kept["peer"]) == harness.FEWEST_ROUNDS


def test_a_side_may_explain_itself(monkeypatch, no_probe):
    times_of(monkeypatch, [[9, 1]] * 6)
    ours = Side("visionkit", None, explain=lambda: ["because of that"])
    peer = Side("peer", None, explain=lambda: ["quick"])
    bench = Bench("X", rounds=6)
    bench.compare("it", ours, [peer], {"peer": at_most(1)}, warm_ups=0)
    assert bench.profiles == ["## X: it", "", "because of that", "quick"]


def test_what_is_not_reached_is_profiled(no_probe):
    def slow():
        return sum(range(30_000))

    bench = Bench("X", rounds=6)
    peer = Side("peer", lambda: None)
    bench.compare("it", Side("visionkit", slow), [peer], {"peer": at_most(0.5)})
    assert bench.rows[0].verdict == "NOT REACHED"
    text = "\n".join(bench.profiles)
    assert "## X: it" in text
    assert "sum" in text


def test_what_is_reached_is_not_profiled(no_probe, monkeypatch):
    times_of(monkeypatch, [[1, 2]] * 12 + [[1, 1]] * 6)
    bench = Bench("X", rounds=6)
    bench.limit("before", 1, 1, "MiB", explain=lambda: ["why"])
    bench.compare("it", *sides(), {"peer": at_most(0.6)}, warm_ups=0)
    bench.compare("it", *sides(), warm_ups=0)
    bench.compare("it", sides()[0], [], warm_ups=0)
    assert not bench.profiles
    assert [row.ratio for row in bench.rows[2:]] == ["0.500 [0.500, 0.500]", "-"]


def test_own_times_leaves_out_what_runs_inside():
    def event(kind, start, duration):
        return SimpleNamespace(metadata_id=kind, offset_ps=start, duration_ps=duration)

    names = {0: "a/while:While", 1: "a/while/b:Conv2D", 2: "ExecutorState::Process"}
    plane = SimpleNamespace(
        event_metadata={k: SimpleNamespace(name=v) for k, v in names.items()}
    )
    events = [event(2, 0, 100), event(0, 0, 90), event(1, 10, 30), event(1, 50, 20)]
    found = profiles.own_times(plane, SimpleNamespace(events=events))
    picoseconds = [(kind, round(own * 1e12)) for kind, own in found]
    assert picoseconds == [("Conv2D", 30), ("Conv2D", 20), ("While", 40)]


def test_missing_peer_is_said_loudly(capsys, no_probe):
    def build():
        peers.load("no_such_peer")

    bench = Bench("X")
    assert bench.peers({"no_such_peer": build}) == []
    said = capsys.readouterr().err
    assert "SKIPPED: X, no_such_peer" in said
    assert "pip install -e '.[bench]'" in said
    assert bench.rows[0].verdict == "SKIPPED"


def test_require_equal_refuses_other_results():
    bench = Bench("X")
    bench.require_equal("boxes", [1.0, 2.0], [1.0, 2.001], 0.01)
    with pytest.raises(UnequalWork, match=r"boxes differ: by 1, and 0 is allowed"):
        bench.require_equal("boxes", [1.0], [2.0])
    with pytest.raises(UnequalWork, match=r"\(1,\) and \(2,\)"):
        bench.require_equal("boxes", [1.0], [1.0, 2.0])


def test_limit_row():
    bench = Bench("X")
    bench.limit("growth", 31, 30, "MiB", explain=lambda: ["of this"])
    assert bench.rows[0].verdict == "NOT REACHED"
    assert bench.profiles == ["## X: growth", "", "of this"]


def test_share_row():
    bench = Bench("X")
    bench.share("peak", 30, "peer", 20, 1.0, "MiB")
    bench.share("peak", 20, "peer", 20, 1.0, "MiB")
    over, even = bench.rows
    assert (over.ratio, over.verdict) == ("1.500", "NOT REACHED")
    assert (even.theirs, even.goal) == ("20 MiB", "≤ 1 of its MiB")
    assert even.verdict == "reached"


def test_import_times_of_packages():
    report = """
import time: self [us] | cumulative | imported package
import time:       100 |        100 |     keras.src
import time:        50 |        150 |   keras
noise
import time:        10 |        160 | visionkit
"""
    found = profiles.import_times(report)
    assert found["visionkit"] == pytest.approx((160e-6, 10e-6))
    assert found["keras"] == pytest.approx((150e-6, 150e-6))


def test_profile_of_imports_names_what_a_process_imports():
    text = "\n".join(profiles.profile_imports("it", "import json; raise SystemExit(2)"))
    assert "| json |" in text


def test_keep_cores_holds_for_what_a_process_starts():
    code = "import os; from benchmarks.__main__ import keep_cores; keep_cores(1); "
    code += "print(len(os.sched_getaffinity(0)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert run.stdout == "1\n"


def test_profiles_of_an_earlier_run_go_when_there_are_none(tmp_path):
    file = tmp_path / "profiles.md"
    write_profiles(file, {"X": {"profiles": ["why"]}})
    assert "why" in file.read_text()
    write_profiles(file, {"X": {"profiles": []}})
    assert not file.exists()


def test_write_table_says_where_it_ran(tmp_path):
    bench = Bench("X")
    bench.limit("growth", 3, 30, "MiB")
    rows = [vars(row) for row in bench.rows]
    result = {"rows": rows, "notes": ["a note"], "seconds": 1.0}
    write_table(tmp_path / "table.md", {"X": result}, quick=True)
    text = (tmp_path / "table.md").read_text()
    for part in (
        "cores",
        "Python",
        "| X | growth | 3 MiB |",
        "- a note",
        "trial run",
        "GPU",
    ):
        assert part in text


def test_cores_are_of_benches():
    assert MORE_CORES.keys() <= BENCHES.keys()


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_of_the_registry_is_there(name):
    module, _, function = BENCHES[name].partition(":")
    source = (ROOT / "benchmarks" / f"{module}.py").read_text()
    assert f"\ndef {function}(bench" in source


def test_a_failing_bench_leaves_its_rows_and_its_error(tmp_path):
    code = f"""
import sys
from benchmarks import __main__ as suite, registry
module = type(sys)("benchmarks.broken")
def broken(bench):
    bench.limit("growth", 1, 2, "MiB")
    raise ValueError("so it is")
module.broken = broken
sys.modules["benchmarks.broken"] = module
suite.BENCHES["X"] = "broken:broken"
sys.argv = ["benchmarks", "X", "--worker", {str(tmp_path / "result.json")!r}]
suite.main()
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert run.returncode != 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["error"] == "ValueError: so it is"
    assert [row["what"] for row in result["rows"]] == ["growth"]
