"""What docker-compose.yml gives to whom: read as it is written, without an engine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from medperf_contracts.access import SERVICES
from services import secret_files
from services.composition import DEFINITIONS
from services.deployment import PUBLIC_KEYS, SIGNING_KEYS, owner_of

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SECRETS_COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.secrets.yml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
WORKERS = {f"{each.name}-worker" for each in DEFINITIONS if each.publishes or each.consumers}
SERVERS = {"nginx", "rabbitmq", "postgresql"}
GROUP = "10001"


def needed() -> dict[str, set[str]]:
    """By container: the secrets without which it cannot do its work."""
    databases = {f"{service}_database_password" for service in SERVICES}
    owners = {f"{owner_of(service)}_database_password" for service in SERVICES}
    return {
        **{service: {f"{service}_database_password", PUBLIC_KEYS} for service in SERVICES},
        "accounts": {"accounts_database_password", PUBLIC_KEYS, SIGNING_KEYS},
        **{
            worker: {f"{worker.removesuffix('-worker')}_{of}_password" for of in ("database", "broker")}
            for worker in WORKERS
        },
        "nginx": set(),
        "rabbitmq": {"erlang_cookie", "rabbitmq_definitions.json"},
        "postgresql": {"database_admin_password"},
        "provision": {"database_admin_password"} | databases | owners,
        "migrate": owners,
        # An import writes what only a database's owner may.
        "operator": databases | owners | {PUBLIC_KEYS},
    }


def test_every_process_of_the_services_runs_and_the_web_processes_are_two_each() -> None:
    assert set(CONTAINERS) == {*SERVICES, *WORKERS, *SERVERS, "provision", "migrate", "operator"}
    for service in SERVICES:
        assert CONTAINERS[service]["command"] == ["run", service]
        assert CONTAINERS[service]["deploy"]["replicas"] == 2
    for worker in WORKERS:
        assert CONTAINERS[worker]["command"] == ["work", worker.removesuffix("-worker")]


@pytest.mark.parametrize("name", sorted(CONTAINERS))
def test_a_container_is_given_its_own_secrets_and_no_other(name: str) -> None:
    assert set(CONTAINERS[name].get("secrets", [])) == needed()[name]


def test_the_secrets_are_those_that_the_command_makes(tmp_path: Path) -> None:
    secret_files.create(tmp_path)
    named = {name: Path(entry["file"]).name for name, entry in COMPOSE["secrets"].items()}
    assert all(name == file for name, file in named.items())
    made = {path.name for path in tmp_path.iterdir()}
    # The broker's administrator is for a person, whom the file gives to no container.
    assert set(named) == made - {"broker_admin_password"}


@pytest.mark.parametrize("container", [*CONTAINERS.values(), *SECRETS_COMPOSE["services"].values()])
def test_a_container_can_change_nothing_of_its_system_and_gain_no_right(container: dict[str, Any]) -> None:
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert "cap_add" not in container
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert not container.get("privileged")


@pytest.mark.parametrize("name", sorted(CONTAINERS))
def test_a_container_is_bounded(name: str) -> None:
    container = CONTAINERS[name]
    assert {"mem_limit", "cpus", "pids_limit"} <= set(container)
    assert {"max-size", "max-file"} == set(container["logging"]["options"])


def test_only_the_gateway_is_published_and_by_default_to_this_machine_alone() -> None:
    published = {name: container["ports"] for name, container in CONTAINERS.items() if "ports" in container}
    assert published == {"nginx": ["${MEDPERF_ADDRESS:-127.0.0.1:8080}:8080"]}
    assert not any(container.get("network_mode") for container in CONTAINERS.values())


def test_the_gateway_reaches_the_web_processes_and_they_alone_the_data() -> None:
    of = {name: set(container["networks"]) for name, container in CONTAINERS.items()}
    assert {name for name, networks in of.items() if "front" in networks} == {"nginx"}
    assert {name for name, networks in of.items() if "api" in networks} == {"nginx", *SERVICES}
    assert "data" not in of["nginx"]
    assert COMPOSE["networks"]["api"]["internal"] is True
    assert COMPOSE["networks"]["data"]["internal"] is True


def test_each_image_is_a_variable_with_one_version_as_its_default() -> None:
    images = {container["image"] for container in (*CONTAINERS.values(), *SECRETS_COMPOSE["services"].values())}
    assert len(images) == 4
    for image in images:
        assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[a-z-]+:\d+(\.\d+){1,2}(-bookworm)?\}", image), image


def test_no_secret_is_a_variable() -> None:
    for container in CONTAINERS.values():
        for name, value in container.get("environment", {}).items():
            assert "PASSWORD" not in name or str(value).startswith("/run/secrets/")


def test_the_secrets_reach_neither_the_repository_nor_the_builder() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", "-q", "secrets/signing_keys.json"], cwd=ROOT, check=False
    ).returncode
    assert ignored == 0
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in sent
    assert not any(line.startswith("!secrets") or line in ("!.", "!**") for line in sent)


def test_the_containers_group_is_the_one_that_the_secrets_are_made_for() -> None:
    (maker,) = SECRETS_COMPOSE["services"].values()
    assert maker["command"][-2:] == ["--group", GROUP]
    assert all(container["group_add"] == [GROUP] for container in CONTAINERS.values())
    assert f"USER {GROUP}:{GROUP}" in (ROOT / "deploy" / "Dockerfile").read_text()
