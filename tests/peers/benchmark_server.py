"""A server that knows one benchmark, one dataset and the containers of a shelf."""

from __future__ import annotations

import re
from typing import Any

from containers.small import Shelf

from . import answers
from .scripted_peer import Asked, Reply


class BenchmarkServer:
    """What a server that knows one benchmark, one dataset and these containers would answer."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.state: str | None = "APPROVED"
        self.models = [2, 4]
        # Of a server from before there were priorities none is said.
        self.priorities: dict[int, int] = {}
        self.store_id = answers.STORE
        self.user_id = 5
        self.benchmark_owner_id = 3
        self.dataset_id = 9
        self.benchmark: dict[str, Any] = {}
        self.refusals: dict[str, Reply] = {}
        self.posted: list[tuple[str, dict[str, Any]]] = []
        self.asked: list[Asked] = []

    def __call__(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        path = asked.path.removeprefix("/api/v1")
        if asked.path in self.shelf.files:
            return Reply(body=self.shelf.files[asked.path])
        if asked.method == "POST":
            return self._post(asked, path)
        if number := re.fullmatch(r"/containers/(\d+)", path):
            return Reply.of(self.shelf.views[int(number[1])].model_dump(mode="json"))
        known = {
            "/server": {**answers.SERVER, "store_id": self.store_id},
            "/benchmarks/1": answers.benchmark(**self.benchmark),
            "/associations": answers.page(*self._associations(), *self._of_models(asked)),
            "/associations/7": next(iter(self._associations()), {}),
            "/due": answers.page(*(self._due(model) for model in self.models)),
        }
        return Reply.of(known[path]) if path in known else Reply.problem(404, "no_such_thing")

    def _post(self, asked: Asked, path: str) -> Reply:
        if path == "/auth/login":
            return Reply.of(answers.tokens(user_id=self.user_id, username=f"user-{self.user_id}"))
        self.posted.append((path, asked.json))
        if path in self.refusals:
            return self.refusals[path]
        views = {"/datasets": self._dataset, "/results": self._result, "/associations": self._association}
        return Reply.of(views[path](asked.json), 201)

    def _associations(self) -> list[dict[str, Any]]:
        if self.state is None:
            return []
        owner = self.benchmark_owner_id
        return [answers.association(7, state=self.state, part_id=9, benchmark_owner_id=owner)]

    def _of_models(self, asked: Asked) -> list[dict[str, Any]]:
        """What the benchmark's owner sees besides: each model's association, at version 3."""
        if self.user_id != self.benchmark_owner_id or "dataset" in asked.query:
            return []
        return [
            answers.association(20 + model, version=3, part_kind="model", part_id=model, state="APPROVED")
            for model in self.models
        ]

    def _association(self, body: dict[str, Any]) -> dict[str, Any]:
        return answers.association(8, part_id=body["dataset_id"], summary=body["summary"])

    def _due(self, model: int) -> dict[str, Any]:
        return {
            "benchmark_id": 1,
            "dataset_id": 9,
            "model_id": model,
            "is_reference_model": model == 2,
            "state": "due",
            "result_id": None,
            **({"priority": self.priorities[model]} if model in self.priorities else {}),
        }

    def _dataset(self, body: dict[str, Any]) -> dict[str, Any]:
        more = {"owner_id": self.user_id, "owner_name": "ada", "preparation_hash": "ab" * 32, "state": "OPERATION"}
        when = {"is_valid": True, "created_at": "2026-01-02T03:04:05Z"}
        return {"id": self.dataset_id, "version": 1, **body, **more, **when}

    def _result(self, body: dict[str, Any]) -> dict[str, Any]:
        more = {"submitted_at": "2026-01-02T03:04:05Z", "is_current": True, "not_current_because": []}
        return {"id": 30 + body["model_id"], "version": 1, **body, **more}
