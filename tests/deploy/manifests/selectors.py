"""Whether each label, name and port that one object says of another leads to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import operators
from .objects import Object, Workload, named, of_kind, selects, title, workloads

# Kubernetes adds it itself.
_ADDED = {"pod-template-hash"}


def faults(objects: Sequence[Object]) -> list[str]:
    """What finds nothing, or finds another's."""
    objects = operators.standing(objects)
    pods = list(workloads(objects))
    return [
        *_owners(pods),
        *_spread(pods),
        *_services(objects, pods),
        *_budgets_and_policies(objects, pods),
        *_targets(objects, pods),
        *_probes(pods),
    ]


def _owners(pods: Sequence[Workload]) -> Iterator[str]:
    for owner in pods:
        if owner.kind not in ("Deployment", "StatefulSet"):
            continue
        selector = owner.owner["spec"]["selector"]
        if not selects(selector, owner.labels):
            yield f"{owner.title}: its selector does not select its own pods"
        for other in pods:
            if other is not owner and selects(selector, other.labels):
                yield f"{owner.title}: its selector selects the pods of {other.title}"


def _spread(pods: Sequence[Workload]) -> Iterator[str]:
    for pod in pods:
        for constraint in pod.spec.get("topologySpreadConstraints", []):
            if not selects(constraint["labelSelector"], pod.labels):
                yield f"{pod.title}: is spread among pods that it is none of"
            for key in set(constraint.get("matchLabelKeys", [])) - _ADDED:
                if key not in pod.labels:
                    yield f"{pod.title}: is spread by {key}, which its pods do not have"


def _services(objects: Sequence[Object], pods: Sequence[Workload]) -> Iterator[str]:
    for service in of_kind(objects, "Service"):
        selector = {"matchLabels": service["spec"].get("selector") or {"": ""}}
        selected = [pod for pod in pods if selects(selector, pod.labels)]
        if len(selected) != 1:
            yield f"{title(service)}: selects the pods of {[pod.title for pod in selected]}, not of one"
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            for pod in selected:
                if pod.number_of(target) is None:
                    yield f"{title(service)}: {pod.title} declares no port {target}"
                elif service["spec"].get("clusterIP") == "None" and pod.number_of(target) != port["port"]:
                    yield f"{title(service)}: has no address, and nothing turns port {port['port']} into {target}"


def _budgets_and_policies(objects: Sequence[Object], pods: Sequence[Workload]) -> Iterator[str]:
    for budget in of_kind(objects, "PodDisruptionBudget"):
        selected = [pod.title for pod in pods if selects(budget["spec"]["selector"], pod.labels)]
        if len(selected) != 1:
            yield f"{title(budget)}: selects the pods of {selected}, not of one"
    for policy in of_kind(objects, "NetworkPolicy"):
        spec = policy["spec"]
        selectors = [spec["podSelector"]]
        for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
            for peer in [*rule.get("from", []), *rule.get("to", [])]:
                if "podSelector" in peer and "namespaceSelector" not in peer:
                    selectors.append(peer["podSelector"])
        for selector in selectors:
            if not any(selects(selector, pod.labels) for pod in pods):
                yield f"{title(policy)}: {selector} selects no pod"


def _targets(objects: Sequence[Object], pods: Sequence[Workload]) -> Iterator[str]:
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        found = named(objects, target["kind"], target["name"])
        if found is None or found["apiVersion"] != target["apiVersion"]:
            yield f"{title(scaler)}: there is no {target['kind']} {target['name']}"
    for ingress in of_kind(objects, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                service = named(objects, "Service", backend["name"])
                wanted = set(backend["port"].values())
                if service is None or not any(
                    wanted & {port.get("name"), port["port"]} for port in service["spec"]["ports"]
                ):
                    yield f"{title(ingress)}: there is no Service {backend['name']} with port {wanted}"
    for pod in pods:
        account = pod.spec.get("serviceAccountName", "default")
        if named(objects, "ServiceAccount", account) is None:
            yield f"{pod.title}: there is no ServiceAccount {account}"
        if pod.kind == "StatefulSet":
            service = named(objects, "Service", pod.owner["spec"]["serviceName"])
            if service is None or service["spec"].get("clusterIP") != "None":
                yield f"{pod.title}: its nodes' names need a Service without an address"


def _probes(pods: Sequence[Workload]) -> Iterator[str]:
    for pod in pods:
        names = [port["name"] for port in pod.ports] + [port["containerPort"] for port in pod.ports]
        if len(names) != len(set(names)):
            yield f"{pod.title}: two of its ports have one name or number"
        for container in pod.containers:
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = container.get(kind, {})
                asked = probe.get("httpGet") or probe.get("tcpSocket")
                if asked and pod.number_of(asked["port"]) is None:
                    yield f"{pod.title}: its {kind} asks port {asked['port']}, which it does not declare"
        told = pod.template["metadata"].get("annotations", {}).get("prometheus.io/port")
        if told and pod.number_of(int(told)) is None:
            yield f"{pod.title}: Prometheus is told of port {told}, which it does not declare"
