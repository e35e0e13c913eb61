"""Many people at work at once through the front door, each command tried again until it is answered.

What was acknowledged is written down: a checker that shares no code with the services looks later if it is so.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

PASSWORD, ADMINISTRATOR = "sesame-sesame", "ann"
ANSWER_SECONDS, PATIENCE_SECONDS = 20.0, 240.0
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
MODELS_OF_A_BENCHMARK_MOST = 6


class Unexpected(Exception):
    """An answer that nothing that went wrong around it excuses."""


@dataclass(frozen=True)
class Acknowledged:
    """A command that was answered with success, and what it was answered."""

    command: str
    kind: str
    thing: dict[str, Any]


@dataclass
class Person:
    """An account, and what its commands have shown it."""

    name: str
    token: str = ""
    token_until: float = 0.0


@dataclass
class Benchmark:
    """What the sites of a benchmark need to know of it."""

    owner: Person
    thing: dict[str, Any]
    preparation: dict[str, Any]
    metrics: dict[str, Any]
    models: list[tuple[dict[str, Any], dict[str, Any] | None]] = field(default_factory=list)
    """Each with its approved association; the reference model has none."""


class Workload:
    """People at work until `is_enough`; the command of each that is under way then is still answered."""

    def __init__(self, url: str, *, sites: int, committees: int, seed: int) -> None:
        self._url = url
        self._random = random.Random(seed)
        self._sites, self._committees = sites, committees
        self.is_enough = False
        self.acknowledged: list[Acknowledged] = []
        self.retries: Counter[str] = Counter()
        self._people = {name: Person(name) for name in (ADMINISTRATOR, *self.names())}
        self._number = 0
        self._http: httpx.AsyncClient

    def names(self) -> list[str]:
        """Of everybody who needs an account, but the administrator."""
        numbers = range(self._committees)
        theirs = [f"{role}-{number}" for role in ("committee", "models") for number in numbers]
        return theirs + [f"site-{number}" for number in range(self._sites)]

    async def run(self) -> None:
        """Work; raises at the first answer that must not be."""
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=50)
        async with httpx.AsyncClient(
            base_url=self._url, timeout=ANSWER_SECONDS, limits=limits, trust_env=False
        ) as self._http:
            benchmarks = await asyncio.gather(
                *(self._open_benchmark(self._people[f"committee-{number}"]) for number in range(self._committees))
            )
            async with asyncio.TaskGroup() as group:
                for number, benchmark in enumerate(benchmarks):
                    group.create_task(self._bring_models(self._people[f"models-{number}"], benchmark))
                for number in range(self._sites):
                    site = self._people[f"site-{number}"]
                    group.create_task(self._take_part(site, benchmarks[number % len(benchmarks)]))

    async def _open_benchmark(self, committee: Person) -> Benchmark:
        preparation, reference, metrics = [await self._container(committee) for _ in range(3)]
        body = {
            "name": f"benchmark {self._next()}",
            "preparation_id": preparation["id"],
            "reference_model_id": reference["id"],
            "metrics_id": metrics["id"],
        }
        made = await self._do(committee, "benchmark", "benchmarks", body)
        await self._do(committee, "benchmark", f"benchmarks/{made['id']}/set-operational", {})
        opened = await self._do(self._people[ADMINISTRATOR], "benchmark", f"benchmarks/{made['id']}/approve", {})
        return Benchmark(committee, opened, preparation, metrics, [(reference, None)])

    async def _bring_models(self, owner: Person, benchmark: Benchmark) -> None:
        while not self.is_enough:
            model = await self._container(owner)
            association = await self._join(owner, benchmark, {"model_id": model["id"]}, ("container", model))
            if len(benchmark.models) < MODELS_OF_A_BENCHMARK_MOST:
                await self._decide(benchmark, association, "approve")
                path, body = f"associations/{association['id']}/set-priority", {"priority": len(benchmark.models)}
                association = await self._do(benchmark.owner, "association", path, body)
                benchmark.models.append((model, association))
            else:
                await self._decide(benchmark, association, self._random.choice(("approve", "reject")))
                await asyncio.sleep(self._random.random())

    async def _take_part(self, site: Person, benchmark: Benchmark) -> None:
        while not self.is_enough:
            dataset = await self._dataset(site, benchmark)
            association = await self._join(site, benchmark, {"dataset_id": dataset["id"]}, ("dataset", dataset))
            if self._random.random() < 0.15:  # not this time: withdrawn or rejected, then asked again
                if self._random.random() < 0.5:
                    await self._do(site, "association", f"associations/{association['id']}/withdraw", {})
                else:
                    await self._decide(benchmark, association, "reject")
                association = await self._join(
                    site, benchmark, {"dataset_id": dataset["id"]}, ("dataset", dataset)
                )
            association = await self._decide(benchmark, association, "approve")
            for model, joined in list(benchmark.models):
                await self._submit(site, benchmark, dataset, association, model, joined)
            if self._random.random() < 0.2:
                await self._do(site, "association", f"associations/{association['id']}/withdraw", {})
            if self._random.random() < 0.2:
                await self._retire(site, dataset)

    async def _container(self, owner: Person) -> dict[str, Any]:
        number = self._next()
        body = {"name": f"container {number}", "manifest": f"name: container-{number}"}
        made = await self._do(owner, "container", "containers", body)
        return await self._do(owner, "container", f"containers/{made['id']}/set-operational", {})

    async def _dataset(self, site: Person, benchmark: Benchmark) -> dict[str, Any]:
        data_hash = f"{self._next():064x}"
        body = {
            "name": f"data {int(data_hash, 16)}",
            "generated_uid": data_hash[:40],
            "data_hash": data_hash,
            "preparation_id": benchmark.preparation["id"],
            "statistics": {"cases": 3},
        }
        return await self._do(site, "dataset", "datasets", body)

    async def _join(
        self, asker: Person, benchmark: Benchmark, part: dict[str, Any], seen: tuple[str, dict[str, Any]]
    ) -> dict[str, Any]:
        body = {"benchmark_id": benchmark.thing["id"], **part, "summary": {"seconds": 1}}
        news = [("benchmark", benchmark.thing), seen]
        return await self._do(asker, "association", "associations", body, seen=news)

    async def _decide(self, benchmark: Benchmark, association: dict[str, Any], decision: str) -> dict[str, Any]:
        path = f"associations/{association['id']}/{decision}"
        return await self._do(benchmark.owner, "association", path, {"reason": "tried"})

    async def _submit(
        self,
        site: Person,
        benchmark: Benchmark,
        dataset: dict[str, Any],
        association: dict[str, Any],
        model: dict[str, Any],
        joined: dict[str, Any] | None,
    ) -> None:
        body = {
            "benchmark_id": benchmark.thing["id"],
            "model_id": model["id"],
            "dataset_id": dataset["id"],
            "metrics": {"auc": 0.5},
            "engine": "sandbox",
            "dataset_hash": dataset["data_hash"],
            "model_hash": model["hash"],
            "metrics_hash": benchmark.metrics["hash"],
            "started_at": "2026-01-01T00:00:00Z",
            "finished_at": "2026-01-01T00:01:00Z",
        }
        news = [("benchmark", benchmark.thing), ("dataset", dataset), ("association", association)]
        news += [("container", model), ("container", benchmark.metrics)]
        news += [] if joined is None else [("association", joined)]
        await self._do(site, "result", "results", body, seen=news)

    async def _retire(self, site: Person, dataset: dict[str, Any]) -> None:
        """Say that the dataset is not valid any more; a lost answer is found out by looking."""
        body, version = {"is_valid": False}, dataset["version"]
        while True:
            answer = await self._ask(
                site, "PATCH", f"datasets/{dataset['id']}", body, {"If-Match": f'"{version}"'}
            )
            if answer.status_code != 412:
                break
            changed = (await self._ask(site, "GET", f"datasets/{dataset['id']}", None, {})).json()
            if changed["is_valid"] is False:
                break
            version = changed["version"]
        thing = answer.json() if answer.is_success else changed
        self.acknowledged.append(Acknowledged(f"PATCH datasets/{dataset['id']}", "dataset", thing))

    async def _do(
        self,
        who: Person,
        kind: str,
        path: str,
        body: dict[str, Any],
        *,
        seen: list[tuple[str, dict[str, Any]]] | None = None,
    ) -> dict[str, Any]:
        """A command, with one key for every try of it; acknowledged in the end."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        if seen:
            headers["Medperf-Seen"] = ", ".join(f"{name}/{each['id']}@{each['version']}" for name, each in seen)
        answer = await self._ask(who, "POST", path, body, headers)
        thing: dict[str, Any] = answer.json()
        self.acknowledged.append(Acknowledged(f"POST {path}", kind, thing))
        return thing

    async def _ask(
        self, who: Person, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]
    ) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            if time.monotonic() > who.token_until:
                await self._log_in(who)
            sent = {**headers, "Authorization": f"Bearer {who.token}"}
            try:
                answer = await self._http.request(method, f"/api/v1/{path}", json=body, headers=sent)
            except httpx.TransportError as error:
                why = type(error).__name__
            else:
                if answer.is_success or answer.status_code == 412:
                    return answer
                why = self._excuse(method, path, answer)
            if time.monotonic() > deadline:
                raise Unexpected(f"{method} {path}: {why} for {PATIENCE_SECONDS:g} s")
            self.retries[why] += 1
            await asyncio.sleep(0.2 + 0.6 * self._random.random())

    @staticmethod
    def _excuse(method: str, path: str, answer: httpx.Response) -> str:
        """Why it is tried again; a refusal that is not for the moment only, or a defect, is none."""
        try:
            code = answer.json()["code"]
        except (ValueError, KeyError, TypeError):
            raise Unexpected(f"{method} {path}: {answer.status_code} is no problem document") from None
        if answer.status_code in RETRIED_STATUSES or code == "in_progress":
            return f"{answer.status_code} {code}"
        raise Unexpected(f"{method} {path}: {answer.status_code} {answer.text}")

    async def _log_in(self, who: Person) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        body = {"username": who.name, "password": PASSWORD}
        while True:
            began = time.monotonic()
            try:
                answer = await self._http.post("/api/v1/auth/login", json=body)
            except httpx.TransportError as error:
                why = type(error).__name__
            else:
                if answer.is_success:
                    who.token = answer.json()["access_token"]
                    who.token_until = began + answer.json()["expires_in_seconds"] / 2
                    return
                why = self._excuse("POST", "auth/login", answer)
            if time.monotonic() > deadline:
                raise Unexpected(f"login: {why} for {PATIENCE_SECONDS:g} s")
            self.retries[f"login {why}"] += 1
            await asyncio.sleep(0.3)

    def _next(self) -> int:
        self._number += 1
        return self._number
