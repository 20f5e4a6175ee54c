"""Running a SavedModel where neither Keras nor visionkit exists, and comparing."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visionkit.serving.report import Finding

LONGEST_RUN = 1800
"""Seconds that a process of the gate may take: many times what the slowest needs."""

_WORKER = Path(__file__).with_name("replay_worker.py")


@dataclasses.dataclass(frozen=True)
class Case:
    """One request and the answers it must get.

    Attributes:
        signature: Name of the signature.
        name: Name of its input.
        value: The input: encoded images as a list of bytes, or an array.
        expected: Answers by output name; dimension 0 is the batch. None: the request
            must be refused.
        logits: (B, H, W, K) of the classes that a "segmentation" chooses among.
    """

    signature: str
    name: str
    value: list[bytes] | np.ndarray
    expected: dict[str, np.ndarray] | None
    logits: np.ndarray | None = None


def check_answers(
    folder: Path, cases: Sequence[Case], tolerance: float
) -> list[Finding]:
    """Faults found by running every case, and every warm-up record, in a bare process.

    Args:
        folder: The folder that holds `saved_model.pb`.
        cases: Requests and the answers expected.
        tolerance: Largest difference allowed between float answers, relative to the
            largest of them where that exceeds 1.
    """
    cases = [case for case in cases if case.expected is not None]
    with tempfile.TemporaryDirectory() as work:
        for index, case in enumerate(cases):
            _write_input(Path(work, str(index)), case)
        plan = [(case.signature, case.name) for case in cases]
        Path(work, "plan.json").write_text(json.dumps(plan))
        process = run_bounded(
            # -P: the worker's own folder, inside the package, is not importable.
            [sys.executable, "-P", str(_WORKER), os.fspath(folder), work],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
        log = Path(work, "failures.json")
        if not log.exists():
            last = " | ".join(process.stderr.strip().splitlines()[-3:])
            problem = f"Without Keras it exits with {process.returncode}: {last}"
            advice = "Use plain TensorFlow ops and track every variable."
            return [Finding("load", folder.name, problem, advice)]
        findings = [
            Finding("run", where, f"It fails: {message}", "Run it and mend its graph.")
            for where, message in json.loads(log.read_text())
        ]
        for index, case in enumerate(cases):
            answers = Path(work, str(index), "answers.npz")
            if answers.exists():
                with np.load(answers, allow_pickle=False) as got:
                    findings += compare(case, dict(got), tolerance)
    return findings


def run_bounded(command: Sequence, **options) -> subprocess.CompletedProcess:
    """A command's end and what it wrote; it is killed after `LONGEST_RUN`.

    Args:
        command: The program and its arguments.
        options: Of `subprocess.run`.

    Returns:
        With status 124, as of `timeout`, where it was killed; `stderr` says so.
    """
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LONGEST_RUN,
            **options,
        )
    except subprocess.TimeoutExpired:
        said = f"it was not done after {LONGEST_RUN} s and was killed"
        return subprocess.CompletedProcess(command, 124, "", said)


def _write_input(folder: Path, case: Case):
    """Encoded images become files, one each, as a client would have them."""
    folder.mkdir()
    if isinstance(case.value, np.ndarray):
        np.save(folder / "input.npy", case.value)
        return
    for index, encoded in enumerate(case.value):
        (folder / f"{index:04d}.image").write_bytes(encoded)


def compare(
    case: Case, got: dict, tolerance: float, runtime: str = ""
) -> list[Finding]:
    """Where the answers to a case are not the expected ones.

    Args:
        case: With expected answers.
        got: Answers by output name.
        tolerance: As for `check_answers`.
        runtime: What answered, for the finding.
    """
    where = f"{case.signature}, batch of {len(case.value)}"
    where += f" ({runtime})" if runtime else ""
    if set(got) != set(case.expected):
        problem = f"Outputs are {sorted(got)}, expected {sorted(case.expected)}"
        return [Finding("outputs", where, problem, "Name the outputs alike.")]
    findings = []
    decided = _decided(case.expected, tolerance)
    for name, expected in case.expected.items():
        mask = decided if name not in _RANKED else np.ones_like(decided)
        if name == "segmentation" and case.logits is not None:
            problem = _wrong_classes(got[name], expected, case.logits, tolerance)
        else:
            problem = _difference(got[name], expected, mask, tolerance)
        if problem:
            advice = "The SavedModel must answer as the model does."
            findings.append(Finding(name, where, problem, advice))
    return findings


_STRINGS = "OS"

# What decides the order of everything else; never wrong by more than rounding.
_RANKED = ("probabilities", "scores", "detection_scores", "proposal_scores")


def _decided(expected: dict[str, np.ndarray], tolerance: float) -> np.ndarray:
    """Where rounding cannot change which class or which box comes first.

    (B,) bool: the two best classes differ clearly. Of detections (B, D) bool: the score
    differs clearly from its neighbours'; padded rows are all alike.
    """
    if "probabilities" in expected:
        second, best = np.sort(expected["probabilities"], axis=-1)[:, -2:].T
        return (best - second > 2 * tolerance) | (best <= 0)
    scores = next((expected[name] for name in _RANKED if name in expected), None)
    if scores is None:
        return np.ones(len(next(iter(expected.values()))), bool)
    close = -np.diff(scores, axis=1) <= 2 * tolerance
    tied = np.pad(close, ((0, 0), (0, 1))) | np.pad(close, ((0, 0), (1, 0)))
    return ~tied | (scores <= 0)


def _unlike(got, expected) -> str | None:
    """How shapes or types differ; strings come as objects or with a length."""
    if got.shape != expected.shape:
        return f"Shape {got.shape}, expected {expected.shape}"
    strings = got.dtype.kind in _STRINGS and expected.dtype.kind in _STRINGS
    if got.dtype != expected.dtype and not strings:
        return f"Type {got.dtype}, expected {expected.dtype}"
    return None


def _difference(got, expected, decided, tolerance: float) -> str | None:
    """How two answers differ, where `decided` holds and they have its dimensions."""
    if problem := _unlike(got, expected):
        return problem
    if got.dtype.kind == "f" and not np.isfinite(got).all():
        return "It holds NaN or infinity"
    if expected.shape[: decided.ndim] == decided.shape:
        got, expected = got[decided], expected[decided]
    if got.dtype.kind != "f":
        different = int(np.sum(got != expected))
        return f"{different} of {got.size} values differ" if different else None
    allowed = tolerance * np.max(np.abs(expected), initial=1.0)
    worst = np.max(np.abs(got - expected), initial=0.0)
    return f"Differs by {worst:.2g}, allowed {allowed:.2g}" if worst > allowed else None


def _wrong_classes(got, expected, logits, tolerance: float) -> str | None:
    """How classes of pixels are wrong: none may be worse than rounding explains.

    By the model's own logits the answered class must be as good as the best one, but
    for twice what the logits themselves may be off. Rounding only ever decides between
    classes that are that close.
    """
    if problem := _unlike(got, expected):
        return problem
    answered, seen = expected < logits.shape[-1], got < logits.shape[-1]
    if different := int(np.sum((got != expected) & ~(answered & seen))):
        return f"{different} of {got.size} pixels are void or unknown on one side alone"
    places = np.where(answered, got, 0)[..., None].astype(np.int64)
    lost = logits.max(axis=-1) - np.take_along_axis(logits, places, axis=-1)[..., 0]
    lost = np.where(answered, lost, 0.0)
    allowed = 2 * tolerance * np.max(np.abs(logits), initial=1.0)
    wrong = int(np.sum(lost > allowed))
    if not wrong:
        return None
    return (
        f"{wrong} of {got.size} pixels have a class whose logit is up to "
        f"{lost.max():.2g} below the best, allowed {allowed:.2g}"
    )
