"""What each pod may: its own secrets, as files; nothing of its machine, nothing of the cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medperf_contracts.access import SERVICES
from services import deployment

from .contents import references
from .objects import COMPONENT, PROCESS, Object, Workload, named, of_kind, title, workloads

_ROLES = frozenset(f"{service}_database_password" for service in SERVICES)
_OWNERS = frozenset(f"{service}_owner_database_password" for service in SERVICES)

# Who reads which secret, by component and process: all of these, and no other.
SECRETS: Mapping[tuple[str, str], frozenset[str]] = {
    **{(name, "web"): frozenset({f"{name}_database_password", "public_keys.json"}) for name in SERVICES},
    **{(name, "worker"): frozenset({f"{name}_database_password", f"{name}_broker_password"}) for name in SERVICES},
    ("accounts", "web"): frozenset({"accounts_database_password", "public_keys.json", "signing_keys.json"}),
    ("provision", "job"): _ROLES | _OWNERS | {"database_admin_password"},
    ("migrate", "job"): _OWNERS,
    # An import writes what only a database's owner may.
    ("operator", ""): _ROLES | _OWNERS,
    ("broker", ""): frozenset({"erlang_cookie", "rabbitmq_definitions.json", "tls.crt", "tls.key"}),
    ("database", ""): frozenset({"database_admin_password"}),
    ("gateway", ""): frozenset(),
}
_ONLY_WITH_TLS = frozenset({"tls.crt", "tls.key"})
SETTINGS = frozenset({deployment.DATABASE_SERVER, deployment.BROKER_SERVER, deployment.SECRETS})
# Kinds of volumes with nothing of the machine's in them.
_VOLUMES = {"name", "emptyDir", "secret", "configMap", "persistentVolumeClaim"}


def faults(objects: Sequence[Object]) -> list[str]:
    """Who may more than needed, or less."""
    return [
        *(
            fault
            for pod in workloads(objects)
            for fault in (*_secrets(pod, objects), *_pod(pod), *_boxes(pod), *_environment(pod, objects))
        ),
        *_cluster(objects),
        *_accounts(objects),
    ]


def _secrets(pod: Workload, objects: Sequence[Object]) -> Iterator[str]:
    who = (pod.labels.get(COMPONENT, ""), pod.labels.get(PROCESS, ""))
    if who not in SECRETS:
        yield f"{pod.title}: nothing says which secrets {who} may read"
        return
    read: set[str] = set()
    for kind, name, key in references(pod):
        if kind == "Secret":
            found = named(objects, "Secret", name)
            read |= {key} if key is not None else set(found["data"] if found else ())
    allowed = SECRETS[who]
    if read not in (allowed, allowed - _ONLY_WITH_TLS):
        yield f"{pod.title}: reads {sorted(read - allowed)} and lacks {sorted(allowed - read)}"
    for volume in pod.spec.get("volumes", []):
        if "secret" in volume and volume["secret"].get("defaultMode") != 0o440:
            yield f"{pod.title}: others can read its volume {volume['name']}"
    for container in pod.containers:
        in_environment = [*container.get("env", []), *container.get("envFrom", [])]
        if any("secretRef" in entry or "secretKeyRef" in entry.get("valueFrom", {}) for entry in in_environment):
            yield f"{pod.title}: has a secret in its environment"


def _pod(pod: Workload) -> Iterator[str]:
    """What the `restricted` standard asks of a pod, and no token of the cluster."""
    security = pod.spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield f"{pod.title}: may run as root"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{pod.title}: has no seccomp profile"
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(field):
            yield f"{pod.title}: has its machine's {field}"
    if pod.spec.get("automountServiceAccountToken") is not False:
        yield f"{pod.title}: has a token of the cluster"
    for volume in pod.spec.get("volumes", []):
        if set(volume) - _VOLUMES:
            yield f"{pod.title}: its volume {volume['name']} is {sorted(set(volume) - {'name'})}"


def _boxes(pod: Workload) -> Iterator[str]:
    for container in pod.containers:
        name = f"{pod.title}: {container['name']}"
        security = container.get("securityContext", {})
        if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
            yield f"{name} may become more than it is"
        if security.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name} keeps capabilities"
        if security.get("readOnlyRootFilesystem") is not True:
            yield f"{name} can write to its image"
        if {"runAsNonRoot", "runAsUser", "seccompProfile"} & set(security):
            yield f"{name} says otherwise than its pod who runs it"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield f"{name} takes a port of its machine"
        if not re.search(r":[0-9][\w.-]*$|@sha256:[0-9a-f]{64}$", container["image"]):
            yield f"{name} runs whatever {container['image']} is today"
        resources = container.get("resources", {})
        if any(set(resources.get(kind, {})) != {"cpu", "memory"} for kind in ("requests", "limits")):
            yield f"{name} has no requests or limits"


def _environment(pod: Workload, objects: Sequence[Object]) -> Iterator[str]:
    """What the server is told is what it knows."""
    for container in pod.containers:
        if container["name"] != "server":
            continue
        told = {variable["name"] for variable in container.get("env", [])}
        for source in container.get("envFrom", []):
            found = named(objects, "ConfigMap", source.get("configMapRef", {}).get("name", ""))
            told |= set(found["data"]) if found else set()
        if told != SETTINGS:
            yield f"{pod.title}: is told {sorted(told - SETTINGS)} and not {sorted(SETTINGS - told)}"


def _cluster(objects: Sequence[Object]) -> Iterator[str]:
    for namespace in of_kind(objects, "Namespace"):
        labels = namespace["metadata"].get("labels", {})
        if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{title(namespace)}: does not hold its pods to the restricted standard"
    for item in of_kind(objects, "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
        yield f"{title(item)}: nothing here needs the cluster's API"


def _accounts(objects: Sequence[Object]) -> Iterator[str]:
    for account in of_kind(objects, "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"{title(account)}: gives out a token of the cluster"
    for pod in workloads(objects):
        if pod.spec.get("serviceAccountName") != pod.labels.get(COMPONENT):
            yield f"{pod.title}: runs as {pod.spec.get('serviceAccountName')}"


def scattered_versions(folder: Path) -> list[str]:
    """Where an image is named with its version: the kustomization that uses it is the one place for that."""
    found = re.compile(r"^\s*(?:- )?image:\s*\S+[:@]", re.MULTILINE)
    return [str(file.relative_to(folder)) for file in folder.rglob("*.yaml") if found.search(file.read_text())]
