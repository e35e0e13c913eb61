"""The objects that operators read: which fields of theirs we set, and what the operators make of them.

Their definitions as published are not at hand here, so these are the fields that we use and no other, each with
the type that its operator's documentation gives: a slip of ours is found, a field that an operator renames is not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jsonschema

from .objects import COMPONENT, Object, title

Schema = dict[str, Any]


def _fields(required: Sequence[str] = (), /, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [*required],
        "additionalProperties": False,
    }


def _map_of(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


_TEXT: Schema = {"type": "string", "minLength": 1}
_YES_OR_NO: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 1}
_QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|[KMGTPE]i)?$"}
_RESOURCES = _fields((), requests=_map_of(_QUANTITY), limits=_map_of(_QUANTITY))
_METADATA = _fields(("name", "namespace"), name=_TEXT, namespace=_TEXT, labels=_map_of(_TEXT))
# A pod's own fields are held to Kubernetes' schema, as those of a StatefulSet: see `pods`.
_POD: Schema = {"type": "object"}
_TEMPLATE = _fields(("spec",), metadata=_fields((), annotations=_map_of(_TEXT), labels=_map_of(_TEXT)), spec=_POD)


def _object_with(required: Sequence[str] = (), /, **spec: Schema) -> Schema:
    return _fields(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion=_TEXT,
        kind=_TEXT,
        metadata=_METADATA,
        spec=_fields(required, **spec),
    )


SCHEMAS: Mapping[tuple[str, str], Schema] = {
    ("rabbitmq.com/v1beta1", "RabbitmqCluster"): _object_with(
        (),
        replicas=_COUNT,
        image=_TEXT,
        persistence=_fields((), storage=_QUANTITY, storageClassName=_TEXT),
        resources=_RESOURCES,
        terminationGracePeriodSeconds=_COUNT,
        tls=_fields((), secretName=_TEXT, caSecretName=_TEXT, disableNonTLSListeners=_YES_OR_NO),
        rabbitmq=_fields((), additionalConfig=_TEXT),
        override=_fields((), statefulSet=_fields((), spec=_fields((), template=_TEMPLATE))),
    ),
    ("postgresql.cnpg.io/v1", "Cluster"): _object_with(
        ("instances",),
        instances=_COUNT,
        imageName=_TEXT,
        storage=_fields((), size=_QUANTITY, storageClass=_TEXT),
        walStorage=_fields((), size=_QUANTITY, storageClass=_TEXT),
        enableSuperuserAccess=_YES_OR_NO,
        superuserSecret=_fields(("name",), name=_TEXT),
        certificates=_fields((), serverTLSSecret=_TEXT, serverCASecret=_TEXT),
        bootstrap=_fields(
            (),
            initdb=_fields((), dataChecksums=_YES_OR_NO, encoding=_TEXT, localeCollate=_TEXT, localeCType=_TEXT),
        ),
        postgresql=_fields(
            (),
            parameters=_map_of(_TEXT),
            synchronous=_fields(
                ("method", "number"),
                method={"enum": ["any", "first"]},
                number=_COUNT,
                dataDurability={"enum": ["required", "preferred"]},
            ),
        ),
        resources=_RESOURCES,
        affinity=_fields(
            (),
            enablePodAntiAffinity=_YES_OR_NO,
            podAntiAffinityType={"enum": ["preferred", "required"]},
            topologyKey=_TEXT,
        ),
        inheritedMetadata=_fields((), annotations=_map_of(_TEXT), labels=_map_of(_TEXT)),
    ),
}
BROKER, DATABASE = SCHEMAS
# What the RabbitMQ operator itself writes, where TLS alone is asked for, before `additionalConfig`.
BROKERS_OWN_CONFIGURATION = """\
ssl_options.certfile = /etc/rabbitmq-tls/tls.crt
ssl_options.keyfile = /etc/rabbitmq-tls/tls.key
listeners.ssl.default = 5671
listeners.tcp = none
prometheus.ssl.certfile = /etc/rabbitmq-tls/tls.crt
prometheus.ssl.keyfile = /etc/rabbitmq-tls/tls.key
prometheus.ssl.port = 15691
"""


def kind_of(item: Object) -> tuple[str, str]:
    return item["apiVersion"], item["kind"]


def refusal(item: Object) -> str | None:
    """What is wrong with an operator's object; None with nothing."""
    errors = jsonschema.Draft202012Validator(SCHEMAS[kind_of(item)]).iter_errors(item)
    for error in sorted(errors, key=lambda each: list(map(str, each.path))):
        return f"{'.'.join(str(part) for part in error.path)}: {error.message}"
    return None


def secrets(item: Object) -> Iterator[tuple[str, str]]:
    """Which Secrets an operator's object names itself, and a key that each must have."""
    spec = item.get("spec", {})
    if kind_of(item) == BROKER and "tls" in spec:
        yield spec["tls"]["secretName"], "tls.crt"
    if kind_of(item) == DATABASE:
        yield spec.get("superuserSecret", {}).get("name", ""), "password"
        yield spec.get("certificates", {}).get("serverTLSSecret", ""), "tls.crt"
        yield spec.get("certificates", {}).get("serverCASecret", ""), "ca.crt"


def standing(objects: Sequence[Object]) -> list[Object]:
    """The objects, and what operators make of theirs: so far as other objects reach or name it."""
    makers: Mapping[tuple[str, str], Callable[[Object], list[Object]]] = {BROKER: _broker, DATABASE: _database}
    made = [each for item in objects if kind_of(item) in makers for each in makers[kind_of(item)](item)]
    return [*objects, *made]


def _broker(item: Object) -> list[Object]:
    name, spec = item["metadata"]["name"], item["spec"]
    template = copy.deepcopy(spec["override"]["statefulSet"]["spec"]["template"])
    template["metadata"]["labels"] = {"app.kubernetes.io/name": name, COMPONENT: "rabbitmq"}
    ports = {"epmd": 4369, "distribution": 25672}
    ports |= {"amqps": 5671, "management-tls": 15671, "prometheus-tls": 15691} if "tls" in spec else {"amqp": 5672}
    pod = template["spec"]
    pod["serviceAccountName"] = f"{name}-server"
    pod["terminationGracePeriodSeconds"] = spec.get("terminationGracePeriodSeconds", 604_800)
    [box] = pod["containers"]
    box |= {"image": spec["image"], "resources": spec["resources"], "ports": _ports(ports)}
    box["readinessProbe"] = {"tcpSocket": {"port": "amqps" if "tls" in spec else "amqp"}}
    for first in pod["initContainers"]:
        first |= {"image": spec["image"]}
    labels = template["metadata"]["labels"]
    nodes = {key: ports[key] for key in ("epmd", "distribution")}
    return [
        _stateful_set(item, f"{name}-server", spec["replicas"], f"{name}-nodes", template),
        _service(item, name, labels, {key: port for key, port in ports.items() if key not in nodes}),
        _service(item, f"{name}-nodes", labels, nodes, clusterIP="None"),
        _object(item, "v1", "ServiceAccount", f"{name}-server"),
    ]


def _database(item: Object) -> list[Object]:
    name, spec = item["metadata"]["name"], item["spec"]
    labels = {"cnpg.io/cluster": name, "cnpg.io/podRole": "instance"}
    ports = {"postgresql": 5432, "status": 8000, "metrics": 9187}
    box = {"name": "postgres", "image": spec["imageName"], "resources": spec["resources"], "ports": _ports(ports)}
    box["readinessProbe"] = {"httpGet": {"path": "/readyz", "port": "status"}}
    pod: Object = {"serviceAccountName": name, "containers": [box]}
    affinity = spec.get("affinity", {})
    if affinity.get("enablePodAntiAffinity", True) and affinity.get("podAntiAffinityType") == "required":
        # Not by this field, but to this effect.
        pod["topologySpreadConstraints"] = [{"labelSelector": {"matchLabels": {"cnpg.io/cluster": name}}}]
    annotations = spec.get("inheritedMetadata", {}).get("annotations", {})
    template = {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod}
    budget = {"maxUnavailable": 1, "selector": {"matchLabels": {"cnpg.io/cluster": name}}}
    return [
        # Pods without a StatefulSet, in truth; what is asked of one is asked of them.
        _stateful_set(item, name, spec["instances"], f"{name}-any", template),
        _service(item, f"{name}-any", labels, {"postgresql": 5432}, clusterIP="None"),
        _service(item, f"{name}-rw", labels, {"postgresql": 5432}),
        _object(item, "policy/v1", "PodDisruptionBudget", name, spec=budget),
        _object(item, "v1", "ServiceAccount", name),
    ]


def _ports(ports: Mapping[str, int]) -> list[Object]:
    return [{"name": name, "containerPort": port} for name, port in ports.items()]


def _object(owner: Object, version: str, kind: str, name: str, **fields: Any) -> Object:
    metadata = {"name": name, "namespace": owner["metadata"]["namespace"]}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def _stateful_set(owner: Object, name: str, replicas: int, service: str, template: Object) -> Object:
    selector = {"matchLabels": template["metadata"]["labels"]}
    spec = {"replicas": replicas, "serviceName": service, "selector": selector, "template": template}
    return _object(owner, "apps/v1", "StatefulSet", name, spec=spec)


def _service(owner: Object, name: str, labels: Object, ports: Mapping[str, int], **more: Any) -> Object:
    opened = [{"name": key, "port": port, "targetPort": port} for key, port in ports.items()]
    return _object(owner, "v1", "Service", name, spec={"selector": labels, "ports": opened, **more})


def pods(objects: Sequence[Object]) -> Iterator[Object]:
    """StatefulSets with what our objects say of a pod, to be held to Kubernetes' schema of one."""
    for item in objects:
        if kind_of(item) == BROKER:
            yield next(each for each in _broker(item) if each["kind"] == "StatefulSet")


def unconfined(objects: Sequence[Object]) -> Iterator[str]:
    """What the standard `restricted`, which the namespace asks for, would refuse of the pods as we say them."""
    for item in pods(objects):
        spec = item["spec"]["template"]["spec"]
        security = spec.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or security.get("seccompProfile") != {
            "type": "RuntimeDefault"
        }:
            yield f"{title(item)}: may run as root, or without a seccomp profile"
        for box in (*spec["initContainers"], *spec["containers"]):
            told = box.get("securityContext", {})
            if told.get("allowPrivilegeEscalation") is not False or told.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{title(item)}: {box['name']} may more than the namespace lets it"
