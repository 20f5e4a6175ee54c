"""The files of a deployment kit that the server and its probes read."""

from __future__ import annotations

from collections.abc import Iterable

from visionkit.serving.server.limits import Limits

MONITORING = """\
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""

# The status answers 200 whatever the state is: only AVAILABLE can be asked.
_READY = """\
#!/bin/bash
# Succeeds when every model has an available version. Once that has been so, a model
# counts only after it was available itself: adding one takes no server out of service,
# and one that is lost does. With "all" every model counts at any time.
# For the image, which has no curl.
served="${{TMPDIR:-/tmp}}/models_served"

available() {{
  exec 3<>/dev/tcp/127.0.0.1/"${{PORT:-8501}}" || return 1
  printf 'GET /v1/models/%s HTTP/1.0\\r\\nConnection: close\\r\\n\\r\\n' "$1" >&3
  timeout 5 cat <&3 | grep -q '"AVAILABLE"'
}}

now=()
for model in {names}; do
  if available "$model"; then
    now+=("$model")
  elif [[ $1 == all || ! -e $served ]] || grep -qxF -e "$model" "$served"; then
    exit 1
  fi
done
printf '%s\\n' "${{now[@]}}" > "$served.$$" && mv "$served.$$" "$served"
"""


def ready_script(names: Iterable[str]) -> str:
    """The probe of a server that is to have the models of these names."""
    return _READY.format(names=" ".join(names))


def batching_config(batch: int, cpus: int, *, split: bool) -> str:
    """`BatchingParameters` in protobuf's text format.

    Args:
        batch: Images that run at once, at most; where nothing is split the server runs
            as many as one request may hold.
        cpus: Threads that run batches.
        split: Whether a request of more than `batch` images runs in parts. The server
            joins their answers as if all had the shape of the first part's.
    """
    lines = [
        f"max_batch_size {{ value: {max(batch, Limits.batch)} }}",
        "batch_timeout_micros { value: 2000 }",
        f"num_batch_threads {{ value: {cpus} }}",
        "max_enqueued_batches { value: 100 }",
        f"enable_large_batch_splitting {{ value: {str(split).lower()} }}",
    ]
    if split:
        lines.append(f"max_execution_batch_size {{ value: {batch} }}")
    return "\n".join(lines) + "\n"
