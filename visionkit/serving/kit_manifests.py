"""The manifests of a deployment kit: Docker Compose and Kubernetes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

_FLAGS = (
    "--port=8500",
    "--rest_api_port=8501",
    "--rest_api_timeout_in_ms=30000",
    "--model_config_file=/kit/models.config",
    "--model_config_file_poll_wait_seconds=30",
    # At the start no version is available yet, so that none could have a label.
    "--allow_version_labels_for_unavailable_models=true",
    "--monitoring_config_file=/kit/monitoring.config",
    "--enable_batching=true",
    "--batching_parameters_file=/kit/batching.config",
    # On by default, and answers whoever reaches the gRPC port.
    "--enable_profiler=false",
    # All calls of a connection go to one server, also to one that is about to stop.
    # After 10 s, well within the drain, the client is asked to open another; the calls
    # under way have as long as a REST request.
    "--grpc_channel_arguments="
    "grpc.max_connection_age_ms=10000,grpc.max_connection_age_grace_ms=30000",
)

_READ_AT_START = ("batching.config", "monitoring.config")


@dataclasses.dataclass(frozen=True)
class Machine:
    """What one server runs on.

    Attributes:
        image: Of the container.
        memory: Limit in bytes.
        cpus: Processor cores.
        gpu: Whether it has a GPU.
        batch: Images that it runs at once.
    """

    image: str
    memory: int
    cpus: int
    gpu: bool
    batch: int

    @property
    def flags(self) -> list[str]:
        """What the server is started with; the folders are at /kit and /models.

        Left alone it takes its threads from the cores of the whole machine, not from
        those that the container may use.
        """
        # Each request that waits for its batch holds one: a batch runs, another fills.
        requests = max(4 * self.cpus, 2 * self.batch)
        return [
            *_FLAGS,
            f"--tensorflow_intra_op_parallelism={self.cpus}",
            f"--tensorflow_inter_op_parallelism={self.cpus}",
            f"--rest_api_num_threads={requests}",
            f"--grpc_max_threads={requests}",
        ]


def _start_up(files: Mapping[str, str]) -> dict[str, str]:
    """An annotation that changes with the files that only a restart reads."""
    digest = hashlib.sha256("".join(files[n] for n in _READ_AT_START).encode())
    return {"checksum/start-up": digest.hexdigest()}


def compose(
    files: Mapping[str, str], folders: Mapping[str, Path], machine: Machine
) -> dict:
    """The content of `compose.yaml`, for models by name and their folders."""
    devices = [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    limits = {"cpus": str(machine.cpus), "memory": str(machine.memory)}
    resources = {"limits": limits}
    if machine.gpu:
        resources["reservations"] = {"devices": devices}
    service = {
        "image": machine.image,
        "labels": _start_up(files),
        "entrypoint": ["tensorflow_model_server"],
        "command": machine.flags,
        # The server asks nobody who they are: no further than this machine.
        "ports": ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"],
        "volumes": [
            _mount(".", "/kit"),
            *(_mount(str(path), f"/models/{name}") for name, path in folders.items()),
        ],
        "healthcheck": {
            "test": ["CMD", "bash", "/kit/ready.sh"],
            "interval": "10s",
            "timeout": "10s",
            "start_period": "120s",
        },
        "deploy": {"resources": resources},
        # It takes no notice of SIGTERM: what it has in work is done within this time.
        "stop_grace_period": "35s",
        "restart": "unless-stopped",
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }
    return {"services": {"serving": service}}


def _mount(source: str, target: str) -> dict:
    """A folder of this machine; in the long syntax it may hold colons."""
    source = source.replace("$", "$$")  # Compose would put a variable in its place
    return {"type": "bind", "source": source, "target": target, "read_only": True}


def kubernetes(
    files: Mapping[str, str], machine: Machine, namespaces: Sequence[str]
) -> list[dict]:
    """The documents of `kubernetes.yaml`, with `files` in a ConfigMap."""
    name = "tensorflow-serving"
    labels = {"app": name}
    selector = {"matchLabels": labels}

    def document(kind: str, api: str, **content) -> dict:
        metadata = {"name": name, "labels": labels}
        return {"apiVersion": api, "kind": kind, "metadata": metadata, **content}

    ports = {"grpc": 8500, "rest": 8501}
    network = {
        "podSelector": selector,
        "policyTypes": ["Ingress"],
        # Nobody is asked who they are: pods of this namespace, and of those named.
        "ingress": [
            {
                "from": [{"podSelector": {}}, *map(_namespace, namespaces)],
                "ports": [{"port": port} for port in ports.values()],
            }
        ],
    }
    deployment = {
        "replicas": 2,
        "selector": selector,
        "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {
            "metadata": {
                "labels": labels,
                "annotations": {
                    **_start_up(files),
                    "prometheus.io/scrape": "true",
                    "prometheus.io/port": "8501",
                    "prometheus.io/path": "/monitoring/prometheus/metrics",
                },
            },
            "spec": _pod(name, machine),
        },
    }
    service_ports = [{"name": k, "port": v} for k, v in ports.items()]
    budget = {"minAvailable": 1, "selector": selector}
    return [
        document("ConfigMap", "v1", data=dict(files)),
        document("Deployment", "apps/v1", spec=deployment),
        document("Service", "v1", spec={"selector": labels, "ports": service_ports}),
        document("PodDisruptionBudget", "policy/v1", spec=budget),
        document("NetworkPolicy", "networking.k8s.io/v1", spec=network),
    ]


def _namespace(name: str) -> dict:
    """All pods of a namespace; the cluster itself gives it this label."""
    labels = {"kubernetes.io/metadata.name": name}
    return {"namespaceSelector": {"matchLabels": labels}}


def _probe(*command: str, **settings) -> dict:
    return {"exec": {"command": list(command)}, "timeoutSeconds": 10, **settings}


def _pod(name: str, machine: Machine) -> dict:
    ready = ("bash", "/kit/ready.sh")
    limits = {"memory": machine.memory} | ({"nvidia.com/gpu": 1} if machine.gpu else {})
    container = {
        "name": name,
        "image": machine.image,
        "command": ["tensorflow_model_server"],
        "args": machine.flags,
        "ports": [{"containerPort": port} for port in (8500, 8501)],
        "resources": {"requests": {"cpu": machine.cpus, **limits}, "limits": limits},
        "startupProbe": _probe(*ready, "all", periodSeconds=5, failureThreshold=60),
        "readinessProbe": _probe(*ready, periodSeconds=10),
        "livenessProbe": {"tcpSocket": {"port": 8500}, "periodSeconds": 20},
        # The server takes no notice of SIGTERM. While this sleeps the pod leaves the
        # Service and goes on answering; the grace period then ends it.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "30"]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "kit", "mountPath": "/kit", "readOnly": True},
            {"name": "models", "mountPath": "/models", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    return {
        "terminationGracePeriodSeconds": 35,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65534},
        "containers": [container],
        "volumes": [
            # A folder, not single files: only a folder follows the ConfigMap.
            {"name": "kit", "configMap": {"name": name}},
            {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
