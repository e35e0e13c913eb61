"""Who may speak to whom: the policies, evaluated as a cluster's network does, against a table of who must."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from medperf_contracts.access import SERVICES

from . import operators
from .objects import COMPONENT, NAMESPACE, PROCESS, Object, of_kind, selects, title, workloads


@dataclass(frozen=True)
class End:
    """One side of a connection: a pod of ours, or of another namespace, or a host that is no pod."""

    name: str
    labels: Mapping[str, str]
    namespace: str | None
    listens: frozenset[tuple[str, int]]
    address: str | None = None
    """Of what is no pod."""

    @property
    def component(self) -> str:
        if not self.is_ours:
            return self.name
        if self.is_an_instance:
            return "database"
        told = self.labels.get(COMPONENT, "")
        return "broker" if told == "rabbitmq" else told

    @property
    def is_an_instance(self) -> bool:
        """Of CloudNativePG's."""
        return "cnpg.io/cluster" in self.labels

    @property
    def process(self) -> str:
        return self.labels.get(PROCESS, "")

    @property
    def is_ours(self) -> bool:
        return self.namespace == NAMESPACE


def _other(name: str, namespace: str | None, *listens: tuple[str, int], **labels: str) -> End:
    return End(name, labels, namespace, frozenset(listens))


DNS = frozenset({("UDP", 53), ("TCP", 53)})
OTHERS = (
    _other("controller", "ingress-nginx"),
    _other("prometheus", "monitoring"),
    End("dns", {"k8s-app": "kube-dns"}, "kube-system", DNS | {("TCP", 9153)}),
    End("api server", {}, None, frozenset({("TCP", 443), ("TCP", 6443)}), "10.0.0.10"),
    _other("CloudNativePG", "cnpg-system", ("TCP", 9443)),
    _other("managed database", "medperf-database", ("TCP", 5432), ("TCP", 8000)),
    _other("stranger", "default", ("TCP", 80), ("TCP", 443)),
    End("internet", {}, None, frozenset({("TCP", 443), ("TCP", 80)}), "203.0.113.7"),
)
_BETWEEN_BROKERS = {4369, 25672}
_BETWEEN_INSTANCES = {5432, 8000}


def needed(source: End, target: End, port: tuple[str, int]) -> bool:
    """The table: every connection that there must be. There must be no other."""
    protocol, number = port
    if port not in target.listens:
        return False
    if target.name == "dns":
        return source.is_ours and port in DNS
    if protocol != "TCP":
        return False
    talks_to_database = source.is_ours and (
        source.process in ("web", "worker") or source.component in ("provision", "migrate", "operator")
    )
    rules: Mapping[str, Callable[[], bool]] = {
        "gateway": lambda: source.name == "controller" and number == 8080,
        "broker": lambda: (
            (source.process == "worker" and number in (5671, 5672))
            or (source.component == "broker" and number in _BETWEEN_BROKERS)
            or (source.name == "prometheus" and number in (15691, 15692))
        ),
        "database": lambda: (
            (talks_to_database and number == 5432)
            or ((source.is_an_instance or source.name == "CloudNativePG") and number in _BETWEEN_INSTANCES)
            or (source.name == "prometheus" and number == 9187)
        ),
        "api server": lambda: source.is_an_instance or source.labels.get(COMPONENT) == "rabbitmq",
        "managed database": lambda: talks_to_database and number == 5432,
    }
    if target.is_ours and target.component in SERVICES:
        is_request = target.process == "web" and source.component == "gateway" and number == 8000
        return is_request or (source.name == "prometheus" and number == 9000)
    return rules.get(target.component, lambda: False)()


def faults(objects: Sequence[Object]) -> list[str]:
    """Each pair of ends and each port: what is open and not needed, or needed and not open; and idle openings."""
    objects = operators.standing(objects)
    policies = of_kind(objects, "NetworkPolicy")
    pods = [
        End(
            pod.title,
            pod.labels,
            NAMESPACE,
            frozenset((port.get("protocol", "TCP"), int(port["containerPort"])) for port in pod.ports),
        )
        for pod in workloads(objects)
    ]
    has_database = any(pod.component == "database" for pod in pods)
    absent = {"managed database"} if has_database else set()
    if not any(pod.is_an_instance for pod in pods):
        absent.add("CloudNativePG")
    others = [end for end in OTHERS if end.name not in absent]
    return [*_pairs(policies, pods, others), *_openings(policies, [*pods, *others])]


def _pairs(policies: Sequence[Object], pods: Sequence[End], others: Sequence[End]) -> Iterator[str]:
    ends = [*pods, *others]
    # Also ports on which nothing listens yet: what is not needed is closed, whatever will listen.
    opened = {port for policy in policies for port in _opened(policy["spec"])} | {("TCP", 22)}
    for source in ends:
        for target in ends:
            if not source.is_ours and not target.is_ours:
                continue
            for port in sorted(target.listens | opened):
                is_open = is_allowed(policies, source, target, port)
                if is_open and not needed(source, target, port):
                    yield f"{source.name} can reach {target.name} on {port}, and has no need to"
                if not is_open and needed(source, target, port):
                    yield f"{source.name} cannot reach {target.name} on {port}"


def _opened(spec: Object) -> Iterator[tuple[str, int]]:
    for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
        yield from map(_opens, rule.get("ports", []))


def is_allowed(policies: Sequence[Object], source: End, target: End, port: tuple[str, int]) -> bool:
    """Whether both sides let the connection through. Policies only hold for pods of their own namespace."""
    return _lets(policies, source, target, port, "Egress") and _lets(policies, target, source, port, "Ingress")


def _lets(policies: Sequence[Object], end: End, peer: End, port: tuple[str, int], direction: str) -> bool:
    concerned = [
        policy["spec"]
        for policy in policies
        if end.is_ours
        and direction in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], end.labels)
    ]
    if not concerned:
        return True
    rules, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    return any(
        _names_peer(rule.get(peers), peer) and _names_port(rule.get("ports"), port)
        for spec in concerned
        for rule in spec.get(rules, [])
    )


def _names_peer(peers: Sequence[Object] | None, end: End) -> bool:
    return not peers or any(_is_peer(peer, end) for peer in peers)


def _is_peer(peer: Object, end: End) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        if "except" in block:
            raise ValueError(f"only a whole block is understood here: {block}")
        return end.address is not None and ipaddress.ip_address(end.address) in ipaddress.ip_network(block["cidr"])
    if end.namespace is None:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": end.namespace}):
            return False
    elif not end.is_ours:
        return False
    return selects(peer.get("podSelector", {}), end.labels)


def _names_port(ports: Sequence[Object] | None, port: tuple[str, int]) -> bool:
    return not ports or any(_opens(entry) == port for entry in ports)


def _opens(entry: Object) -> tuple[str, int]:
    if not isinstance(entry.get("port"), int) or "endPort" in entry:
        raise ValueError(f"only a port by its number is understood here: {entry}")
    return entry.get("protocol", "TCP"), entry["port"]


def _openings(policies: Sequence[Object], ends: Sequence[End]) -> Iterator[str]:
    """An opening towards which nothing listens is a mistake, or is left over; a block may hold any host."""
    for policy in policies:
        spec = policy["spec"]
        selected = [end for end in ends if end.is_ours and selects(spec["podSelector"], end.labels)]
        for rule in spec.get("ingress", []):
            for port in map(_opens, rule.get("ports", [])):
                for end in selected:
                    if port not in end.listens:
                        yield f"{title(policy)}: opens {port} of {end.name}, which does not listen there"
        for rule in spec.get("egress", []):
            for port in map(_opens, rule.get("ports", [])):
                for peer in (each for each in rule.get("to", []) if "ipBlock" not in each):
                    targets = [end for end in ends if _is_peer(peer, end)]
                    if not targets or any(port not in end.listens for end in targets):
                        yield f"{title(policy)}: opens {port} to {peer}, where nothing listens"
