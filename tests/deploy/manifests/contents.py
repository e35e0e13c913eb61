"""Whether each Secret, ConfigMap, key, volume and address that is named is there, and none for nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from services import deployment

from . import operators
from .objects import NAMESPACE, Object, Workload, named, of_kind, title, workloads

_ADDRESS_SETTINGS = (deployment.DATABASE_SERVER, deployment.BROKER_SERVER)
_DOMAIN = [NAMESPACE, "svc", "cluster", "local"]
# Hosts outside the namespace that an operator answers for.
OUTSIDE = {("medperf-rw.medperf-database.svc", 5432)}
# How nginx names what it asks.
_UPSTREAM = re.compile(r"[\s/]([a-z][a-z0-9.-]*):(\d+)\s*;")
_LISTEN = re.compile(r"\blisten (\d+)")
_NODE = re.compile(r"classic_config\.nodes\.\d+\s*=\s*rabbit@([a-z0-9.-]+)")


def faults(objects: Sequence[Object]) -> list[str]:
    """What is named and not there, or there and not named."""
    objects = operators.standing(objects)
    pods = list(workloads(objects))
    return [
        *(fault for pod in pods for fault in (*_volumes(pod), *_references(pod, objects))),
        *_of_operators(objects),
        *_certificates(objects),
        *_unused(objects, pods),
        *_addresses(objects, pods),
        *_gateway(objects, pods),
        *_nodes(objects),
    ]


def _volumes(pod: Workload) -> Iterator[str]:
    there = {volume["name"] for volume in pod.spec.get("volumes", [])}
    there |= {claim["metadata"]["name"] for claim in pod.owner["spec"].get("volumeClaimTemplates", [])}
    mounted = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts", [])}
    for name in sorted(mounted - there):
        yield f"{pod.title}: mounts {name}, which is no volume of it"
    for name in sorted(there - mounted):
        yield f"{pod.title}: nothing mounts its volume {name}"
    for container in pod.containers:
        paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        if len(paths) != len(set(paths)):
            yield f"{pod.title}: two volumes of {container['name']} are mounted at one place"


def references(pod: Workload) -> Iterator[tuple[str, str, str | None]]:
    """Which Secrets, ConfigMaps and claims a pod names: kind, name, and the key where it names one."""
    for volume in pod.spec.get("volumes", []):
        for kind, field, name in (
            ("Secret", "secret", "secretName"),
            ("ConfigMap", "configMap", "name"),
            ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
        ):
            if field in volume:
                items = volume[field].get("items")
                for key in [item["key"] for item in items] if items else [None]:
                    yield kind, volume[field][name], key
    for container in pod.containers:
        for source in container.get("envFrom", []):
            for kind, field in (("Secret", "secretRef"), ("ConfigMap", "configMapRef")):
                if field in source:
                    yield kind, source[field]["name"], None
        for variable in container.get("env", []):
            for kind, field in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
                if field in variable.get("valueFrom", {}):
                    yield kind, variable["valueFrom"][field]["name"], variable["valueFrom"][field]["key"]


def _references(pod: Workload, objects: Sequence[Object]) -> Iterator[str]:
    for kind, name, key in references(pod):
        found = named(objects, kind, name)
        if found is None:
            yield f"{pod.title}: there is no {kind} {name}"
        elif key is not None and key not in found.get("data", {}):
            yield f"{pod.title}: {kind} {name} has no {key}"


def _of_operators(objects: Sequence[Object]) -> Iterator[str]:
    for item in objects:
        for name, key in operators.secrets(item):
            found = named(objects, "Secret", name)
            if found is None:
                yield f"{title(item)}: there is no Secret {name}"
            elif not found.get("data", {}).get(key):
                yield f"{title(item)}: Secret {name} has no {key}"


def _certificates(objects: Sequence[Object]) -> Iterator[str]:
    for ingress in of_kind(objects, "Ingress"):
        served = {host for tls in ingress["spec"].get("tls", []) for host in tls["hosts"]}
        for rule in ingress["spec"]["rules"]:
            if rule["host"] not in served:
                yield f"{title(ingress)}: {rule['host']} is not served by TLS"
        for tls in ingress["spec"].get("tls", []):
            secret = named(objects, "Secret", tls["secretName"])
            if secret is None or secret["type"] != "kubernetes.io/tls":
                yield f"{title(ingress)}: there is no certificate {tls['secretName']}"


def _unused(objects: Sequence[Object], pods: Sequence[Workload]) -> Iterator[str]:
    used = {(kind, name) for pod in pods for kind, name, _ in references(pod)}
    for ingress in of_kind(objects, "Ingress"):
        used |= {("Secret", tls["secretName"]) for tls in ingress["spec"].get("tls", [])}
    used |= {("Secret", name) for item in objects for name, _ in operators.secrets(item)}
    accounts = {("ServiceAccount", pod.spec.get("serviceAccountName")) for pod in pods}
    for item in of_kind(objects, "Secret", "ConfigMap", "ServiceAccount", "PersistentVolumeClaim"):
        if (item["kind"], item["metadata"]["name"]) not in used | accounts:
            yield f"{title(item)}: nothing uses it"


def _serves(objects: Sequence[Object], host: str, port: int) -> bool:
    names = host.split(".")
    if names[1:] not in ([], _DOMAIN[:1], _DOMAIN[:2], _DOMAIN):
        return (host, port) in OUTSIDE
    service = named(objects, "Service", names[0])
    return service is not None and port in [served["port"] for served in service["spec"]["ports"]]


def _addresses(objects: Sequence[Object], pods: Sequence[Workload]) -> Iterator[str]:
    settings = [item for item in of_kind(objects, "ConfigMap") if "MEDPERF_SECRETS" in item["data"]]
    if len(settings) != 1:
        yield f"there are {len(settings)} ConfigMaps with the settings, not one"
        return
    for name in _ADDRESS_SETTINGS:
        address = settings[0]["data"].get(name, "")
        url = urlsplit(address)
        if not url.hostname or not url.port or not _serves(objects, url.hostname, url.port):
            yield f"{name} is {address!r}, where nothing serves"
        yield from _files(address, objects, pods)
    for pod in pods:
        uses = [name for kind, name, _ in references(pod) if kind == "ConfigMap"]
        mounts = [mount["mountPath"] for box in pod.containers for mount in box.get("volumeMounts", [])]
        if settings[0]["metadata"]["name"] in uses and settings[0]["data"]["MEDPERF_SECRETS"] not in mounts:
            yield f"{pod.title}: its secrets are not where MEDPERF_SECRETS says"


def _files(address: str, objects: Sequence[Object], pods: Sequence[Workload]) -> Iterator[str]:
    """A file that an address names is there in every pod that reads it."""
    for folder, file in re.findall(r"=(/[^&?]*)/([^/&?]+)", address):
        for pod in pods:
            if not any("settings" in name for kind, name, _ in references(pod) if kind == "ConfigMap"):
                continue
            volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
            found = [
                named(objects, "ConfigMap", volumes[mount["name"]]["configMap"]["name"])
                for container in pod.containers
                for mount in container.get("volumeMounts", [])
                if mount["mountPath"] == folder and "configMap" in volumes.get(mount["name"], {})
            ]
            if not any(item is not None and file in item["data"] for item in found):
                yield f"{pod.title}: there is no {folder}/{file} in it"


def _gateway(objects: Sequence[Object], pods: Sequence[Workload]) -> Iterator[str]:
    for item in of_kind(objects, "ConfigMap"):
        for host, port in _UPSTREAM.findall(item["data"].get("nginx.conf", "")):
            if not _serves(objects, host, int(port)):
                yield f"{title(item)}: the gateway's {host}:{port} is served by no Service"
    for pod in pods:
        for kind, name, _ in references(pod):
            found = named(objects, kind, name)
            configuration = found["data"].get("nginx.conf") if found and kind == "ConfigMap" else None
            listens = {int(port) for port in _LISTEN.findall(configuration or "")}
            if configuration is not None and listens != {port["containerPort"] for port in pod.ports}:
                yield f"{pod.title}: nginx listens on {sorted(listens)}, and it declares something else"


def _nodes(objects: Sequence[Object]) -> Iterator[str]:
    """The cluster that the brokers are told of is the pods that there are; an operator tells its own."""
    if any(operators.kind_of(item) == operators.BROKER for item in objects):
        return
    broker = named(objects, "StatefulSet", "broker")
    if broker is None:
        yield "there is no broker"
        return
    count, names = broker["spec"]["replicas"], broker["spec"]["serviceName"]
    expected = {f"broker-{index}.{names}.{NAMESPACE}" for index in range(count)}
    for item in of_kind(objects, "ConfigMap"):
        configuration = item["data"].get("rabbitmq.conf")
        if configuration is not None:
            told = set(_NODE.findall(configuration))
            if (count > 1 or told) and told != expected:
                yield f"{title(item)}: names the nodes {sorted(told)}, and there are {sorted(expected)}"
