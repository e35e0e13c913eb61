"""Every service in one process behind the gateway, with people and things: what the contract tests ask."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import Coroutine
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import httpx
from sqlalchemy import select

from medperf_contracts.envelope import Envelope
from medperf_contracts.versions import IDEMPOTENCY_HEADER
from services.accounts import commands as accounts
from services.accounts import signing_keys
from services.embedded.server import compose
from services.embedded.store import Store
from services.gateway.embedded import EmbeddedGateway
from services.kernel import migrate
from services.kernel.bus import EmbeddedBus
from services.kernel.http import build_app
from services.kernel.tables import outbox

T = TypeVar("T")
API = "/api/v1"
PASSWORD = "a long password"
ADMIN, COMMITTEE, SITE, MODELER, STRANGER = "admin", "committee", "site", "modeler", "stranger"
PEOPLE = (ADMIN, COMMITTEE, SITE, MODELER, STRANGER)
OPERATOR, NOBODY = "the operator", "nobody"
SECRET = "never-in-an-event"


class Whole:
    """An embedded server without its socket. News is delivered when `settle` is called, and only then."""

    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        store = Store(folder)
        store.assets.mkdir()
        signing_keys.create_signing_key(store.signing_key)
        self.services = compose(
            store, EmbeddedBus(), host="127.0.0.1", operator_token_hash=store.write_operator_token()
        )
        for service in self.services.values():
            self.run(migrate.upgrade(service.database))
        self.run(self._create_store())
        self._apps = {name: build_app(service) for name, service in self.services.items()}
        self._gateway = EmbeddedGateway(self._apps, assets=store.assets, working=nullcontext())
        self._tokens = {OPERATOR: store.operator_token.read_text()}
        self._number = itertools.count(1)
        for name in PEOPLE:
            self.did(
                OPERATOR, "POST", "users", {"username": name, "password": PASSWORD, "is_admin": name == ADMIN}
            )
            self._tokens[name] = self.log_in(name)["access_token"]
        self._build()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        for service in self.services.values():
            self.run(service.database.close())
        self._runner.close()

    def openapi(self, service: str) -> dict[str, Any]:
        return self._apps[service].openapi()

    def ask(
        self,
        who: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
        key: bool = True,
    ) -> httpx.Response:
        """One request to the gateway; `path` is under /api/v1."""
        sent = dict(headers or {})
        if who != NOBODY:
            sent["Authorization"] = f"Bearer {self._tokens[who]}"
        if method == "POST" and key:
            sent[IDEMPOTENCY_HEADER] = str(uuid.uuid4())
        if body is not None:
            content = json.dumps(body).encode()
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        return self.run(self._send(method, f"{API}/{path}", content, sent))

    def did(
        self, who: str, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """`ask`, where success is the ground of a test; then every service hears of it."""
        response = self.ask(who, method, path, body, headers=headers)
        assert response.is_success, f"{who}: {method} {path}: {response.text}"
        if method != "GET":
            self.settle()
        answer: dict[str, Any] = response.json()
        return answer

    def settle(self) -> None:
        """Deliver every event that waits, and what those bring about."""

        async def deliver() -> None:
            relays = [service.relay for service in self.services.values()]
            while waiting := [relay for relay in relays if await relay.waiting()]:
                for relay in waiting:
                    assert await relay.publish_waiting(), "what waits is published at once"

        self.run(deliver())

    def events(self, service: str) -> list[Envelope]:
        """What a service recorded in its outbox."""

        async def read() -> list[Envelope]:
            async with self.services[service].database.read() as session:
                rows = (await session.execute(select(outbox.c.envelope).order_by(outbox.c.position))).scalars()
                return [Envelope.model_validate_json(row) for row in rows]

        return self.run(read())

    def log_in(self, who: str) -> dict[str, Any]:
        return self.did(NOBODY, "POST", "auth/login", {"username": who, "password": PASSWORD})

    def user(self) -> int:
        """A new account."""
        body = {"username": f"user{self._next()}", "password": PASSWORD}
        return int(self.did(OPERATOR, "POST", "users", body)["id"])

    def container(self, owner: str, *, in_operation: bool = True) -> int:
        """A new container."""
        number = self._next()
        made = self.did(owner, "POST", "containers", self.new_container(number))
        if in_operation:
            self.did(owner, "POST", f"containers/{made['id']}/set-operational")
        return int(made["id"])

    def new_container(self, number: int | None = None) -> dict[str, Any]:
        number = number or self._next()
        return {
            "name": f"container {number}",
            "description": SECRET,
            "manifest": f"name: c{number} # {SECRET}",
            "parameters": f"secret: {SECRET}",
        }

    def benchmark(
        self, owner: str, *, in_operation: bool = True, approved: bool = True, public_scores: bool = False
    ) -> int:
        """A new benchmark of the shared preparation and metrics with a reference model of its own."""
        number = self.did(owner, "POST", "benchmarks", self.new_benchmark(owner, public_scores=public_scores))[
            "id"
        ]
        if in_operation:
            self.did(owner, "POST", f"benchmarks/{number}/set-operational")
            if approved:
                self.did(ADMIN, "POST", f"benchmarks/{number}/approve")
        return int(number)

    def new_benchmark(self, owner: str, *, public_scores: bool = False) -> dict[str, Any]:
        return {
            "name": f"benchmark {self._next()}",
            "description": SECRET,
            "preparation_id": self.preparation,
            "reference_model_id": self.container(owner),
            "metrics_id": self.metrics,
            "public_scores": public_scores,
        }

    def dataset(self, owner: str) -> int:
        """A new dataset."""
        return int(self.did(owner, "POST", "datasets", self.new_dataset())["id"])

    def new_dataset(self) -> dict[str, Any]:
        data_hash = f"{self._next():064x}"
        return {
            "name": "data",
            "description": SECRET,
            "location": SECRET,
            "generated_uid": data_hash[:40],
            "data_hash": data_hash,
            "preparation_id": self.preparation,
            "statistics": {"secret": SECRET},
        }

    def progress(self, owner: str, benchmark: int) -> int:
        """What is told of a new preparation."""
        return int(self.did(owner, "POST", "progress", self.new_progress(benchmark))["id"])

    def new_progress(self, benchmark: int) -> dict[str, Any]:
        stages = [{"stage": 2, "cases": 14}, {"stage": -1.1, "cases": 3}, {"stage": None, "cases": 1}]
        return {"benchmark_id": benchmark, "preparation": str(uuid.uuid4()), "stages": stages}

    def request(self, asker: str, benchmark: int, *, dataset: int | None = None, model: int | None = None) -> int:
        """A request to take part."""
        part = {"dataset_id": dataset} if dataset is not None else {"model_id": model}
        body = {"benchmark_id": benchmark, **part, "summary": {"secret": SECRET}}
        return int(self.did(asker, "POST", "associations", body)["id"])

    def joined_dataset(self, benchmark: int) -> int:
        """A new dataset of the site that takes part in the committee's benchmark."""
        dataset = self.dataset(SITE)
        association = self.request(SITE, benchmark, dataset=dataset)
        self.did(COMMITTEE, "POST", f"associations/{association}/approve", {"reason": SECRET})
        return dataset

    def new_result(self, benchmark: int, dataset: int, model: int | None = None) -> dict[str, Any]:
        """What the site would submit of a model, the reference model by default."""
        facts = self.did(ADMIN, "GET", f"benchmarks/{benchmark}")
        model = model or facts["reference_model_id"]
        return {
            "benchmark_id": benchmark,
            "model_id": model,
            "dataset_id": dataset,
            "metrics": {"secret": SECRET},
            "engine": "sandbox",
            "dataset_hash": self.did(ADMIN, "GET", f"datasets/{dataset}")["data_hash"],
            "model_hash": self.did(ADMIN, "GET", f"containers/{model}")["hash"],
            "metrics_hash": self.did(ADMIN, "GET", f"containers/{self.metrics}")["hash"],
            "started_at": "2026-01-01T00:00:00Z",
            "finished_at": "2026-01-01T00:01:00Z",
        }

    def result(self, benchmark: int, model: int | None = None) -> int:
        """An accepted result of the site."""
        body = self.new_result(benchmark, self.joined_dataset(benchmark), model)
        return int(self.did(SITE, "POST", "results", body)["id"])

    def _build(self) -> None:
        self.preparation, self.metrics = self.container(COMMITTEE), self.container(COMMITTEE)
        self.closed_scores = self.benchmark(COMMITTEE)
        self.public_scores = self.benchmark(COMMITTEE, public_scores=True)
        self.model = self.container(MODELER)
        association = self.request(MODELER, self.closed_scores, model=self.model)
        self.did(COMMITTEE, "POST", f"associations/{association}/approve", {})

    def _next(self) -> int:
        return next(self._number)

    async def _create_store(self) -> None:
        async with self.services["accounts"].database.write() as session:
            await accounts.create_store(session)

    async def _send(self, method: str, url: str, content: bytes | None, headers: dict[str, str]) -> httpx.Response:
        transport = httpx.ASGITransport(app=self._gateway, client=("127.0.0.1", 1), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            sent = httpx.Headers(headers, encoding="latin-1")
            return await http.request(method, url, content=content, headers=sent)
