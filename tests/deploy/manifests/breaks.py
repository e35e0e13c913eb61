"""Ways to break one thing of what was rendered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .objects import Check, Object, title

Break = Callable[[list[Object]], Any]


def _find(objects: Sequence[Object], name: str) -> Object:
    kind, _, stem = name.partition(" ")
    found = [item for item in objects if item["kind"] == kind and _is(item, stem)]
    assert len(found) == 1, (name, [title(item) for item in found])
    return found[0]


def _is(item: Object, stem: str) -> bool:
    """Kustomize ends the names of Secrets and ConfigMaps with a hash."""
    named: str = item["metadata"]["name"]
    return named == stem or (item["kind"] in ("Secret", "ConfigMap") and named.rpartition("-")[0] == stem)


def _at(name: str, *path: str | int) -> Callable[[list[Object]], Any]:
    def look(objects: list[Object]) -> Any:
        value: Any = _find(objects, name)
        for part in path:
            value = value[part]
        return value

    return look


def put(name: str, *path: str | int, value: Any) -> Break:
    """Set what is at a path."""

    def change(objects: list[Object]) -> None:
        _at(name, *path[:-1])(objects)[path[-1]] = value

    return change


def drop(name: str, *path: str | int) -> Break:
    """Remove what is at a path, or the whole object."""

    def change(objects: list[Object]) -> None:
        if path:
            del _at(name, *path[:-1])(objects)[path[-1]]
        else:
            objects.remove(_find(objects, name))

    return change


def add(name: str, *path: str | int, value: Any) -> Break:
    """Append to the list at a path."""
    return lambda objects: _at(name, *path)(objects).append(value)


def more(text: Object) -> Break:
    """One more object."""
    return lambda objects: objects.append(text)


def assert_found(check: Check, change: Break, fault: str, *, of: list[Object]) -> None:
    """The check names the fault of what was whole before the change."""
    change(of)
    found = check(of)
    assert any(fault in line for line in found), found
