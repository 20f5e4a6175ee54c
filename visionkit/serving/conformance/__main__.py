"""The command: asks, prints a line for each case, exits with 1 if one does not hold."""

from __future__ import annotations

import argparse
import os
import sys

from visionkit._quiet import quiet_start


def main(argv: list[str] | None = None) -> int:
    """Examine a server and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m visionkit.serving.conformance",
        description="Does a server of an export speak as TensorFlow Serving does?",
    )
    parser.add_argument("--target", required=True, metavar="URL", help="of REST")
    parser.add_argument("--grpc", default="", metavar="HOST:PORT", help="of gRPC")
    parser.add_argument("--model", default="model", help="its name; default: model")
    parser.add_argument(
        "--saved-model",
        default="",
        metavar="VERSION_DIR",
        help="what is served, to compare the answers with",
    )
    arguments = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_start():
        from visionkit.serving.conformance.subject import Mismatch, Subject

    try:
        subject = Subject(
            arguments.target, arguments.model, arguments.grpc, arguments.saved_model
        )
    except (Mismatch, OSError) as error:
        print(f"error: {arguments.target}: {error}", file=sys.stderr)
        return 2
    failed = examine(subject)
    print(f"{failed} failed" if failed else "all hold")
    return 1 if failed else 0


def examine(subject) -> int:
    """Ask everything, print a line for each case, and return how many do not hold."""
    from visionkit.serving.conformance import grpc_cases, rest_cases
    from visionkit.serving.conformance.subject import Mismatch, Skip

    groups = [("REST", rest_cases.CASES)]
    if subject.grpc:
        groups.append(("gRPC", grpc_cases.CASES))
    failed = 0
    for group, cases in groups:
        for case in cases:
            try:
                case(subject)
                verdict, why = "holds", ""
            except Skip as reason:
                verdict, why = "left out", f": {reason}"
            except Mismatch as error:
                verdict, why = "FAILS", f": {error}"
            except Exception as error:  # whatever a strange answer leads to
                verdict, why = "FAILS", f": {type(error).__name__}: {error}"
            failed += verdict == "FAILS"
            print(f"{verdict:9} {group} {case.__name__}{why}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
