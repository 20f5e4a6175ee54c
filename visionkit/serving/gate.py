"""The gate: checks that a SavedModel must pass before a server may see it.

`check_graph` reads `saved_model.pb` and the index of the variables and runs nothing.
`check_answers` loads the folder in a process that has neither Keras nor visionkit,
runs every signature and compares with what the model itself answered.
`check_c_runtime` does the same by TensorFlow's C API, without Python and without XLA.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from visionkit.serving import c_runtime
from visionkit.serving.replay import Case, check_answers
from visionkit.serving.report import Finding, GateReport

CHECKS = {
    "graph": "signatures, batches of any size, ops and constants that a server takes, "
    "weights stored once, no XLA",
    "answers": "every signature and warm-up record runs without Keras and visionkit, "
    "and answers as the model does",
    "c_runtime": "the same without Python and with XLA disabled, and a broken image is "
    "refused, not fatal",
}
"""Check -> what it proves of an export, and what is given up without it."""

SIGNATURES = ("serving_default", "images", "tensors", "tolerant")
INPUT_TYPES = (tf.string, tf.uint8, tf.float32)
# What every client of a server can read, REST and gRPC alike.
OUTPUT_TYPES = (tf.float32, tf.int32, tf.uint8, tf.string)
MAX_CONSTANT_BYTES = 1_000_000
MAX_VARIABLES_RATIO = 1.05

_PYTHON = "It runs Python, which a server does not have", "Use TensorFlow ops instead."
_FILES = (
    "It touches files or the console",
    "Make the content an input of the signature.",
)
_XLA = "A server runs with XLA disabled", "Trace the signature without jit_compile."
_STATE = "It changes variables", "Trace with training=False, without random layers."
_TABLE = "It needs a table that is initialised", "Use tf.gather on a constant."
_RANDOM = "It draws random numbers", "Trace with training=False, without random layers."
_NO_KERNEL = "It has no CPU kernel in a stock server", "Use another op."

# Op names (full match) -> problem and advice.
DENIED = {
    r"PyFunc|PyFuncStateless|EagerPyFunc|NumpyFunction": _PYTHON,
    r"ReadFile|WriteFile|MatchingFiles|(Save|Restore).*|.*Reader(V2)?": _FILES,
    r"(TFRecord|TextLine|FixedLengthRecord)Dataset.*|.*Summary.*|Print(V2)?": _FILES,
    r"Xla.*": _XLA,
    r"Assign.*|Resource(Scatter|Apply).*|RngReadAndSkip|StatefulUniform.*": _STATE,
    r"Random(Uniform|Standard|Gamma|Poisson|Shuffle).*": _RANDOM,
    r"(Parameterized)?TruncatedNormal|Multinomial": _RANDOM,
    r".*HashTable.*|LookupTable.*": _TABLE,
    r"GenerateBoundingBoxProposals": _NO_KERNEL,
}


def run_gate(
    folder: Path,
    parameter_bytes: int,
    cases: Sequence[Case],
    tolerance: float = 1e-4,
) -> GateReport:
    """All checks on an export.

    Args:
        folder: The folder that holds `saved_model.pb`.
        parameter_bytes: Size of the model's weights, each counted once.
        cases: Inputs of every signature with the answers that are expected.
        tolerance: Largest difference allowed between float answers, relative to the
            largest of them where that exceeds 1.

    Returns:
        The report. The answers are not compared when the graph already fails.
    """
    findings = check_graph(folder, parameter_bytes)
    checks, skipped = ["graph"], {}
    if not findings:
        running = {"answers": check_answers}
        if reason := c_runtime.missing():
            skipped["c_runtime"] = reason
        else:
            running["c_runtime"] = c_runtime.check_c_runtime
        with ThreadPoolExecutor() as pool:  # each waits for a process of its own
            found = pool.map(
                lambda check: check(folder, cases, tolerance), running.values()
            )
            findings = [finding for each in found for finding in each]
        checks += running
    return GateReport(str(folder), tuple(findings), tuple(checks), skipped)


def check_graph(folder: Path, parameter_bytes: int) -> list[Finding]:
    """Faults that can be read from the files: signatures, ops, constants, weights."""
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((Path(folder) / "saved_model.pb").read_bytes())
    meta_graph = saved.meta_graphs[0]
    findings = list(_signature_findings(meta_graph.signature_def))
    for function, nodes, attributes in _reachable(meta_graph):
        if _must_compile(attributes):
            findings.append(Finding("_XlaMustCompile", function, *_XLA))
        for node in nodes:
            findings.extend(_node_findings(node, function))
    findings.extend(_weight_findings(Path(folder), parameter_bytes))
    return list(dict.fromkeys(findings))


def _signature_findings(signatures) -> Iterator[Finding]:
    for name in SIGNATURES:
        if name not in signatures:
            yield Finding(name, "saved_model.pb", "The signature is missing", "Add it.")
    for name in sorted(set(signatures) - {"__saved_model_init_op"}):
        for kind, tensors, types in (
            ("input", signatures[name].inputs, INPUT_TYPES),
            ("output", signatures[name].outputs, OUTPUT_TYPES),
        ):
            for key, info in sorted(tensors.items()):
                shape, dtype = tf.TensorShape(info.tensor_shape), tf.DType(info.dtype)
                if shape.rank is None or shape.rank < 1 or shape[0] is not None:
                    yield Finding(
                        key,
                        name,
                        f"The {kind}'s shape is {shape}; dimension 0 must be a batch "
                        "of any size",
                        "Make dimension 0 None, so that a server can batch requests.",
                    )
                if dtype not in types:
                    yield Finding(
                        key,
                        name,
                        f"The {kind} is {dtype.name}",
                        f"Cast it to one of {', '.join(t.name for t in types)}.",
                    )


def _node_findings(node, function: str) -> Iterator[Finding]:
    for pattern, reason in DENIED.items():
        if re.fullmatch(pattern, node.op):
            yield Finding(node.op, function, *reason)
            break
    else:
        if not hasattr(tf.raw_ops, node.op):
            problem = "It is not an op of stock TensorFlow"
            yield Finding(node.op, function, problem, "Use TensorFlow ops instead.")
    if _must_compile(node.attr):
        yield Finding("_XlaMustCompile", function, *_XLA)
    if node.op == "Const" and node.attr["value"].ByteSize() > MAX_CONSTANT_BYTES:
        yield Finding(
            f"Const {node.name}",
            function,
            f"The constant holds {node.attr['value'].ByteSize():,} bytes, more than "
            f"{MAX_CONSTANT_BYTES:,}",
            "Make it a variable, or compute it in the graph.",
        )


def _must_compile(attributes) -> bool:
    return "_XlaMustCompile" in attributes and attributes["_XlaMustCompile"].b


def _reachable(meta_graph) -> Iterator[tuple]:
    """(name, nodes, attributes) of the main graph and of each function it can call.

    What only saves and restores the variables is left out: a server runs it once, at
    loading. In the main graph that is every node the signatures do not read.
    """
    library = {f.signature.name: f for f in meta_graph.graph_def.library.function}
    by_name = {node.name: node for node in meta_graph.graph_def.node}
    outputs = [
        info.name
        for signature in meta_graph.signature_def.values()
        for info in signature.outputs.values()
    ]
    seen = _closure(map(_producer, outputs), lambda n: map(_producer, by_name[n].input))
    nodes = [by_name[name] for name in seen]
    yield "the main graph", nodes, {}
    called = _closure(
        _functions_of(nodes), lambda name: _functions_of(library[name].node_def)
    )
    for name in called:
        yield name, library[name].node_def, library[name].attr


def _closure(start, neighbours) -> list[str]:
    """Everything that can be reached from `start`, each once."""
    seen, waiting = {}, list(start)
    while waiting:
        item = waiting.pop()
        if item not in seen:
            seen[item] = True
            waiting.extend(neighbours(item))
    return list(seen)


def _producer(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]


def _functions_of(nodes) -> list[str]:
    return [
        function.name
        for node in nodes
        for attribute in node.attr.values()
        for function in (attribute.func, *attribute.list.func)
        if function.name
    ]


def _weight_findings(folder: Path, parameter_bytes: int) -> Iterator[Finding]:
    prefix = folder / "variables" / "variables"
    if not prefix.with_suffix(".index").exists():
        return
    reader = tf.train.load_checkpoint(str(prefix))
    types = reader.get_variable_to_dtype_map()
    stored = sum(
        int(np.prod(shape)) * types[name].size
        for name, shape in reader.get_variable_to_shape_map().items()
        if types[name] != tf.string
    )
    if stored > MAX_VARIABLES_RATIO * parameter_bytes:
        yield Finding(
            "variables",
            str(folder.name),
            f"{stored:,} bytes are stored for {parameter_bytes:,} bytes of parameters",
            "Track each variable once: do not attach the Keras model to the module.",
        )
