"""Passwords and keys are renewed as the operator's guide says, and nobody is logged out or loses an event."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from deployed.deployment import Deployment, deployment
from deployed.workload import ADMINISTRATOR, PASSWORD

# One deployment at a time: a machine with two cores has none to spare. Alone it takes a minute.
pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("deployment")]

SECONDS = 30.0


def test_services_passwords_and_the_signing_keys_are_renewed_while_people_stay_logged_in(tmp_path: Path) -> None:
    with (
        deployment(tmp_path, replicas=1) as whole,
        httpx.Client(base_url=whole.url, trust_env=False, timeout=20) as http,
    ):
        whole.add_accounts(["ada"], PASSWORD, administrator=ADMINISTRATOR)
        person = Person(http)
        first = person.registers()
        folder = str(whole.folder / "secrets")
        old_login = person.token

        whole.command("secrets", "renew", folder, "registry_database_password", "results_database_password")
        whole.command("provision")
        for service in ("registry", "results"):
            restart(whole, service)
        second = person.registers()

        whole.command("secrets", "renew", folder, "registry_broker_password", "results_broker_password")
        whole.rabbitmq.load(json.loads((whole.folder / "secrets" / "rabbitmq_definitions.json").read_text()))
        for service in ("registry", "results"):
            restart(whole, service)
        third = person.registers()

        whole.command("secrets", "renew", folder, "signing_keys.json")
        assert person.sees(first), "a login that the key before signed is still known"
        assert person.logs_in() != old_login
        fourth = person.registers()
        whole.command("secrets", "renew", folder, "signing_keys.json")
        person.token = old_login
        assert not person.sees(first), "after the second time the first key is forgotten"
        person.logs_in()
        for uid in (first, second, third, fourth):
            until(lambda uid=uid: is_copied(whole, uid))


def test_the_old_password_opens_nothing_after_the_renewal(tmp_path: Path) -> None:
    with deployment(tmp_path, replicas=1) as whole:
        secrets = whole.folder / "secrets"
        old = (secrets / "results_database_password").read_text()
        whole.command("secrets", "renew", str(secrets), "results_database_password")
        whole.command("provision")
        renewed = (secrets / "results_database_password").read_text()
        (secrets / "results_database_password").write_text(old)
        peer = whole.webs["results"][0]
        peer.life.stop()
        peer.life.start()
        until(lambda: "password authentication failed" in (peer.problem() or ""))
        (secrets / "results_database_password").write_text(renewed)
        peer.life.stop()
        peer.life.start()
        whole.wait_until_ready()


class Person:
    """Somebody who registers containers."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._count = 0
        self.token = ""
        self.logs_in()

    def logs_in(self) -> str:
        answer = self._http.post("/api/v1/auth/login", json={"username": "ada", "password": PASSWORD})
        self.token = str(answer.raise_for_status().json()["access_token"])
        return self.token

    def registers(self) -> int:
        self._count += 1
        body = {"name": f"c{self._count}", "manifest": f"name: c{self._count}"}
        headers = {**self._headers(), "Idempotency-Key": f"container-{self._count}"}
        deadline = time.monotonic() + SECONDS
        while not (answer := self._http.post("/api/v1/containers", json=body, headers=headers)).is_success:
            assert answer.status_code in (502, 503), answer.text
            assert time.monotonic() < deadline
            time.sleep(0.2)
        return int(answer.json()["id"])

    def sees(self, uid: int) -> bool:
        answer = self._http.get(f"/api/v1/containers/{uid}", headers=self._headers())
        assert answer.is_success or answer.json()["code"] == "token_invalid", answer.text
        return answer.is_success

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def is_copied(whole: Deployment, uid: int) -> bool:
    return bool(whole.rows("results", f"SELECT id FROM container_copies WHERE id = {uid}"))


def restart(whole: Deployment, service: str) -> None:
    for peer in (*whole.webs[service], *whole.workers[service]):
        peer.life.stop()
        peer.life.start()
    whole.wait_until_ready()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
