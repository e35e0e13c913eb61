"""Each object against the schema that Kubernetes publishes of its kind: of the oldest version, and the newest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import kubernetes_validate

from . import operators
from .objects import NAMESPACE, Object, title, workloads

VERSIONS = ("1.27", "1.37")
# What is not in a namespace.
_CLUSTER_KINDS = {"Namespace"}
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[KMGTPE]i|[kMGTPE])?")


def faults(objects: Sequence[Object]) -> list[str]:
    """What an API server would refuse, or drop without a word."""
    known = [
        *(item for item in objects if operators.kind_of(item) not in operators.SCHEMAS),
        *operators.pods(objects),
    ]
    return [
        *_twice(objects),
        *_outside(objects),
        *_of_operators(objects),
        *(fault for item in known for fault in _of(item)),
    ]


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


def _of_operators(objects: Sequence[Object]) -> Iterator[str]:
    for item in objects:
        if operators.kind_of(item) in operators.SCHEMAS:
            if refusal := operators.refusal(item):
                yield f"{title(item)}: {refusal}"
            for place in _nulls(item, ""):
                yield f"{title(item)}: {place} is null"


def _of(item: Object) -> Iterator[str]:
    for version in VERSIONS:
        refusal = _refusal(json.dumps(item), version)
        if refusal:
            yield f"{title(item)}: {refusal}"
    for place in _nulls(item, ""):
        yield f"{title(item)}: {place} is null"
    for workload in workloads([item]):
        for container in workload.containers:
            for kind, amounts in container.get("resources", {}).items():
                for name, amount in amounts.items():
                    if not _QUANTITY.fullmatch(str(amount)):
                        yield f"{title(item)}: {kind} of {name}: {amount} is no quantity"


@lru_cache(maxsize=1000)
def _refusal(item: str, version: str) -> str | None:
    """What a version's schema has against an object; an object that it has no schema of is refused too."""
    read = json.loads(item)
    try:
        kubernetes_validate.validate(read, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return f"Kubernetes {version} has no {read['apiVersion']} {read['kind']}"
    except kubernetes_validate.ValidationError as error:
        return f"in Kubernetes {version}, {'.'.join(str(part) for part in error.path)}: {error.message}"
    return None


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
