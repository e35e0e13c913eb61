"""Each object against the schema that Kubernetes publishes of its kind: the oldest version served, and the newest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import kubernetes_validate

from .objects import NAMESPACE, Object, title, workloads

VERSIONS = ("1.27", "1.37")
# What is not in a namespace.
_CLUSTER_KINDS = {"Namespace"}
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[KMGTPE]i|[kMGTPE])?")


def faults(objects: Sequence[Object]) -> list[str]:
    """What an API server would refuse, or drop without a word."""
    return [*_twice(objects), *_outside(objects), *(fault for item in objects for fault in _of(item))]


def _twice(objects: Sequence[Object]) -> Iterator[str]:
    seen: set[str] = set()
    for item in objects:
        if title(item) in seen:
            yield f"{title(item)}: there are two of this name"
        seen.add(title(item))


def _outside(objects: Sequence[Object]) -> Iterator[str]:
    for item in objects:
        expected = None if item["kind"] in _CLUSTER_KINDS else NAMESPACE
        if item["metadata"].get("namespace") != expected:
            yield f"{title(item)}: is in namespace {item['metadata'].get('namespace')}, not {expected}"


def _of(item: Object) -> Iterator[str]:
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            yield f"{title(item)}: Kubernetes {version} has no {item['apiVersion']} {item['kind']}"
        except kubernetes_validate.ValidationError as error:
            place = ".".join(str(part) for part in error.path)
            yield f"{title(item)}: in Kubernetes {version}, {place}: {error.message}"
    for place in _nulls(item, ""):
        yield f"{title(item)}: {place} is null"
    for workload in workloads([item]):
        for container in workload.containers:
            for kind, amounts in container.get("resources", {}).items():
                for name, amount in amounts.items():
                    if not _QUANTITY.fullmatch(str(amount)):
                        yield f"{title(item)}: {kind} of {name}: {amount} is no quantity"


def _nulls(value: Any, place: str) -> Iterator[str]:
    """The schemas let null stand for any value; an API server takes it as not said."""
    if value is None:
        yield place.removeprefix(".")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _nulls(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _nulls(inner, f"{place}[{index}]")
