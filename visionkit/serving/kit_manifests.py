"""The manifests of a deployment kit: Docker Compose and Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FLAGS = (
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
)
"""What the server is started with; the folders are mounted at /kit and /models."""


def compose(folders: Mapping[str, Path], *, image, memory, cpus, gpu) -> dict:
    """The content of `compose.yaml`, for models by name and their folders."""
    devices = [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    limits = {"cpus": str(cpus), "memory": str(memory)}
    resources = {"limits": limits}
    if gpu:
        resources["reservations"] = {"devices": devices}
    service = {
        "image": image,
        "entrypoint": ["tensorflow_model_server"],
        "command": list(FLAGS),
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


def kubernetes(files: dict[str, str], *, image, memory, cpus, gpu) -> list[dict]:
    """The documents of `kubernetes.yaml`, with `files` in a ConfigMap."""
    name = "tensorflow-serving"
    labels = {"app": name}
    selector = {"matchLabels": labels}
    config = {k: v for k, v in files.items() if not k.endswith(".yaml")}

    def document(kind: str, api: str, **content) -> dict:
        metadata = {"name": name, "labels": labels}
        return {"apiVersion": api, "kind": kind, "metadata": metadata, **content}

    ports = {"grpc": 8500, "rest": 8501}
    network = {
        "podSelector": selector,
        "policyTypes": ["Ingress"],
        # Nobody is asked who they are: pods of this namespace alone.
        "ingress": [
            {
                "from": [{"podSelector": {}}],
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
                    "prometheus.io/scrape": "true",
                    "prometheus.io/port": "8501",
                    "prometheus.io/path": "/monitoring/prometheus/metrics",
                },
            },
            "spec": _pod(name, image, memory, cpus, gpu),
        },
    }
    service_ports = [{"name": k, "port": v} for k, v in ports.items()]
    budget = {"minAvailable": 1, "selector": selector}
    return [
        document("ConfigMap", "v1", data=config),
        document("Deployment", "apps/v1", spec=deployment),
        document("Service", "v1", spec={"selector": labels, "ports": service_ports}),
        document("PodDisruptionBudget", "policy/v1", spec=budget),
        document("NetworkPolicy", "networking.k8s.io/v1", spec=network),
    ]


def _pod(name: str, image: str, memory: int, cpus: int, gpu: bool) -> dict:
    ready = {"exec": {"command": ["bash", "/kit/ready.sh"]}, "timeoutSeconds": 10}
    limits = {"memory": memory} | ({"nvidia.com/gpu": 1} if gpu else {})
    container = {
        "name": name,
        "image": image,
        "command": ["tensorflow_model_server"],
        "args": list(FLAGS),
        "ports": [{"containerPort": port} for port in (8500, 8501)],
        "resources": {"requests": {"cpu": cpus, **limits}, "limits": limits},
        "startupProbe": {**ready, "periodSeconds": 5, "failureThreshold": 60},
        "readinessProbe": {**ready, "periodSeconds": 10},
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
