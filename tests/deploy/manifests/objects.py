"""What kustomize rendered, as the checks look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
Check = Callable[[Sequence[Object]], list[str]]

NAMESPACE = "medperf"
COMPONENT = "app.kubernetes.io/component"
PROCESS = "medperf.org/process"


@dataclass(frozen=True)
class Workload:
    """What makes pods, and how its pods are."""

    kind: str
    name: str
    owner: Object
    template: Object

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def labels(self) -> Mapping[str, str]:
        return self.template["metadata"].get("labels", {})

    @property
    def spec(self) -> Object:
        return self.template["spec"]

    @property
    def containers(self) -> Sequence[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def ports(self) -> Sequence[Object]:
        return [port for container in self.spec["containers"] for port in container.get("ports", [])]

    def number_of(self, port: str | int) -> int | None:
        """The number of a port that a container declares; None if none does."""
        for declared in self.ports:
            if port in (declared.get("name"), declared["containerPort"]):
                return int(declared["containerPort"])
        return None


def title(item: Object) -> str:
    return f"{item['kind']} {item['metadata']['name']}"


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    return [item for item in objects if item["kind"] in kinds]


def named(objects: Sequence[Object], kind: str, name: str) -> Object | None:
    return next((item for item in of_kind(objects, kind) if item["metadata"]["name"] == name), None)


def workloads(objects: Sequence[Object]) -> Iterator[Workload]:
    for item in objects:
        template = _template(item)
        if template is not None:
            yield Workload(item["kind"], item["metadata"]["name"], item, template)


def _template(item: Object) -> Object | None:
    spec = item.get("spec") or {}
    if item["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template = spec.get("template")
    return template if isinstance(template, dict) else None


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector, of any of its forms, selects what has these labels. An empty one selects all."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions", []))


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(f"no such operator: {expression['operator']}")
