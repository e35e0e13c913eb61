"""How a service describes itself (OpenAPI 3.1): what the web framework cannot know of the way of a request."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from medperf_contracts.problems import MEDIA_TYPE
from medperf_contracts.versions import IDEMPOTENCY_HEADER, SEEN_HEADER, SEEN_MOST

from .errors import BodyTooLarge, NotAllowed
from .idempotency import KEY_FORM

_PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}
_IDEMPOTENCY_KEY = {
    "name": IDEMPOTENCY_HEADER,
    "in": "header",
    "required": True,
    "schema": {"type": "string", "pattern": f"^{KEY_FORM}$"},
    "description": "A new UUID for each action, the same one when trying again: kept for 24 hours",
}
_SEEN = {
    "name": SEEN_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": f"Versions that the caller has seen, at most {SEEN_MOST}, such as association/7@3, dataset/1@2",
}


def describe(app: FastAPI, *, own_transactions: frozenset[str]) -> None:
    """Complete the document of `app`; `own_transactions` are the endpoints that take no idempotency key."""
    generate = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    takes_key = method == "post" and f"POST {path}" not in own_transactions
                    _complete(operation, takes_key=takes_key, takes_body=method != "get")
        return generate()

    app.openapi = complete  # type: ignore[method-assign]  # the framework's own way to extend a document


def _complete(operation: dict[str, Any], *, takes_key: bool, takes_body: bool) -> None:
    operation.setdefault("parameters", []).extend([_IDEMPOTENCY_KEY, _SEEN] if takes_key else [_SEEN])
    responses = operation["responses"]
    # The operator's token is refused everywhere but on the server's own machine.
    responses.setdefault(str(NotAllowed.status), {"description": NotAllowed.code})
    if takes_body:
        responses[str(BodyTooLarge.status)] = {"description": BodyTooLarge.code}
    for status, response in responses.items():
        if int(status) >= 400:
            response["content"] = {MEDIA_TYPE: _PROBLEM}
