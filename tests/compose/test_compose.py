"""A deployment by Compose: who reaches what, and the data owner's path while each container is killed."""

from __future__ import annotations

import json
import re
import ssl
import time
from pathlib import Path

import httpx
import pytest

from compose.project import Project, run
from containers.small import write_cases
from flow.test_federation import Federation
from medperf.manifest import Role
from medperf_contracts.access import SERVICES
from peers.certificates import Authority
from peers.people import PASSWORD, Person

pytestmark = pytest.mark.timeout(3600)

DELIVERY_SECONDS = 120
WORKERS = tuple(f"{service}-worker" for service in SERVICES if service != "accounts")
# Tries each address once, all at the same time; prints those that take the connection.
_REACHED = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def reached(target):
    try:
        socket.create_connection(target, 3).close()
    except OSError:
        return None
    return target
with ThreadPoolExecutor(64) as pool:
    print(json.dumps([each for each in pool.map(reached, json.loads(sys.argv[1])) if each]))
"""


def reached(project: Project, network: str, targets: list[tuple[str, int]]) -> set[tuple[str, int]]:
    """Which addresses take a connection from a container in one of the project's networks."""
    inside = ["--rm", "--network", f"{project.name}_{network}", "--entrypoint", "python3"]
    words = ["docker", "run", *inside, project.images["MEDPERF_IMAGE"], "-c", _REACHED, json.dumps(targets)]
    return {(address, port) for address, port in json.loads(run(words))}


def test_nothing_is_published_but_the_gateway_on_this_machine(project: Project) -> None:
    published = {each.service: each.published for each in project.containers() if each.published}
    assert published == {"nginx": [f"127.0.0.1:{project.port}"]}
    assert httpx.get(f"{project.url}/api/v1/server", trust_env=False).json()["is_embedded"] is False
    for path in ("/metrics", "/live", "/ready", "/api/v1/operations"):
        assert httpx.get(f"{project.url}{path}", trust_env=False).status_code == 404


def test_a_network_reaches_what_is_on_it_and_nothing_else(project: Project) -> None:
    ports = {"postgresql": (5432,), "rabbitmq": (5672, 4369, 25672, 15672), "nginx": (8080, 9000)}
    listening: dict[str, set[tuple[str, int]]] = {"front": set(), "api": set(), "data": set()}
    for container in project.containers(*SERVICES, *WORKERS, *ports):
        for network, address in container.addresses.items():
            listening[network] |= {(address, port) for port in ports.get(container.service, (8000, 9000))}
    everywhere = sorted(set.union(*listening.values()))
    for network, on_it in listening.items():
        found = reached(project, network, everywhere)
        assert found <= on_it, f"{network} leads to {found - on_it}"
        assert found, f"from {network} the check reaches what it may"
    (database,) = project.containers("postgresql")
    assert set(database.addresses) == {"data"}
    assert (database.addresses["data"], 5432) in reached(project, "data", everywhere)


def test_a_container_is_nobody_in_particular_and_can_write_nothing(project: Project) -> None:
    for container in project.containers("results", "results-worker", "nginx"):
        said = container.inside(
            "sh", "-c", "id -u; grep CapEff /proc/self/status; touch /opt/x /srv/x 2>&1 || true"
        )
        uid, capabilities, *refused = said.splitlines()
        assert (uid, capabilities.split()[1].strip("0")) == ("10001", "")
        assert all("Read-only file system" in line for line in refused)
        assert len(refused) == 2


def test_secrets_are_in_files_that_nobody_else_on_the_machine_reads(project: Project) -> None:
    folder = project.folder / "secrets"
    assert folder.stat().st_mode & 0o007 == 0
    values = []
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o007 == 0, path
        if path.name.endswith("password"):
            values.append(path.read_text())
    described = json.dumps([container.described for container in project.containers()])
    assert not any(value in described for value in values), "a password is in what the engine tells of a container"


def test_a_replica_that_is_replaced_is_found_and_each_gets_requests(project: Project) -> None:
    before = {each.addresses["api"] for each in project.containers("registry")}
    project.compose("up", "-d", "--no-deps", "--force-recreate", "registry")
    project.wait_until_well()
    now = {each.addresses["api"] for each in project.containers("registry")}
    with httpx.Client(base_url=project.url, trust_env=False) as http:
        for _ in range(60):
            assert http.get("/api/v1/openapi/registry.json").status_code == 200
            time.sleep(0.1)
    logged = project.compose("logs", "--tail", "30", "nginx")
    asked = set(re.findall(r'"replicas":"([0-9.]+):8000"', logged))
    assert asked <= now
    assert len(asked) == 2, f"both of the new replicas {now}, which were {before}, are asked"


def test_the_guides_backup_is_taken_and_restored_as_it_is_typed(project: Project) -> None:
    guide = (
        (project.folder / "docs" / "operating.md").read_text().partition("### Back up and restore with Compose")[2]
    )
    backup, restore = re.findall(r"```\n(.*?)```", guide, re.DOTALL)[:2]
    project.command("user", "add", "early", "--password-stdin", given=f"{PASSWORD}\n")
    store = httpx.get(f"{project.url}/api/v1/server", trust_env=False).json()["store_id"]
    project.type(backup)
    assert (project.folder / "base.tar").stat().st_mode & 0o077 == 0
    project.command("user", "add", "late", "--password-stdin", given=f"{PASSWORD}\n")
    project.type(restore)
    project.wait_until_well()
    users = project.command("user", "ls")
    assert "early" in users
    assert "late" not in users, "what came after the backup is in the new volume: it is the old one"
    assert httpx.get(f"{project.url}/api/v1/server", trust_env=False).json()["store_id"] == store


@pytest.fixture
def federation(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Federation:
    """People with accounts that the operator made, each on a machine of their own."""
    people = {}
    for name in ("ann", "committee", "modeller", "hospital"):
        role = ["--admin"] if name == "ann" else []
        project.command("user", "add", name, "--password-stdin", *role, given=f"{PASSWORD}\n")
        people[name] = Person(name, tmp_path / name, project.url, monkeypatch, capsys)
        people[name].machine.mkdir()
    built = Federation(project, people)
    for name in people:
        built.log_in(name)
    return built


def test_the_data_owners_path_is_walked_while_each_container_is_killed(
    project: Project, federation: Federation
) -> None:
    restarts = {each.id: each.restarts for each in project.containers()}
    benchmark, model = set_up(project, federation)
    cases = write_cases(federation.people["hospital"].machine / "cases", ("one", "three", "fifteen"))
    folders = ("--data_path", cases / "images", "--labels_path", cases / "labels")
    kill(project, "postgresql")
    printed = federation.do("hospital", "dataset", "create", "--name", "x", *folders, "--benchmark", benchmark)
    generated = re.search(r"Generated UID: (\w+)", printed)
    assert generated is not None
    kill(project, "rabbitmq")
    printed = federation.do("hospital", "dataset", "submit", "--data_uid", generated[1], asks=True)
    dataset = int(printed.rpartition("Server UID: ")[2].split()[0])
    kill(project, "nginx")
    association = federation.ask("hospital", benchmark, "--data_uid", dataset)
    # Of two replicas one is left, and workers go on where they were: nobody waits for anything.
    kill(project, *SERVICES, which=0, waits=False)
    federation.do("committee", "association", "approve", association)
    project.wait_until_well()
    kill(project, *SERVICES, *WORKERS, which=-1, waits=False)
    printed = federation.do("hospital", "benchmark", "run", "--benchmark", benchmark, "--data_uid", dataset)
    assert [line.split()[:2] for line in printed.splitlines()[2:4]] == [
        ["2", f"b{benchmark}m2d{dataset}"],
        [str(model), f"b{benchmark}m{model}d{dataset}"],
    ]
    assert "✅ Done!" in federation.do("hospital", "result", "submit", "--all", asks=True)
    project.wait_until_well()

    killed = {each.service: each.restarts - restarts[each.id] for each in project.containers()}
    assert not [
        service for service, times in killed.items() if times < 1 and service not in ("provision", "migrate")
    ]
    assert_all_arrived(federation, "hospital", {f"association/{association}"})
    assert_all_arrived(federation, "committee", {f"association/{association}", "result/1", "result/2"})
    assert "There is no stuck message." in project.command("dead-letters", "ls")
    project.command("verify")  # it fails where a copy differs from its owner
    assert len(json.loads(federation.do("committee", "result", "ls", "--json"))) == 2


def set_up(project: Project, federation: Federation) -> tuple[int, int]:
    """A benchmark in operation, and a model that takes part; their UIDs."""
    parts = [federation.container("committee", role) for role in Role]
    demo = federation.give_out("committee", write_cases(federation.people["committee"].machine / "demo"))
    of = dict(zip(("preparation", "reference_model", "metrics"), parts, strict=True))
    benchmark = federation.benchmark("committee", name="x", **of, demo_data_url=demo)
    federation.do("ann", "benchmark", "approve", benchmark)
    model = federation.container("modeller", Role.MODEL)
    asked = federation.ask("modeller", benchmark, "--model_uid", model)
    federation.do("committee", "association", "approve", asked)
    return benchmark, model


def kill(project: Project, *services: str, which: int = 0, waits: bool = True) -> None:
    """SIGKILL to one replica of each; the engine starts it again."""
    project.kill([project.containers(service)[which] for service in services])
    if waits:
        time.sleep(1)
        project.wait_until_well()


def assert_all_arrived(federation: Federation, name: str, about: set[str]) -> None:
    """Events that were on their way when something was killed have their effect."""
    deadline = time.monotonic() + DELIVERY_SECONDS
    told: set[str] = set()
    while time.monotonic() < deadline:
        told = {item["about"] for item in json.loads(federation.do(name, "notifications", "ls", "--json"))}
        if about <= told:
            return
        time.sleep(1)
    pytest.fail(f"{name} was not told of {about - told} within {DELIVERY_SECONDS} s")


def test_with_the_second_file_the_gateway_speaks_tls_and_nothing_else(project: Project, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    authority.server("127.0.0.1")
    for name in ("gateway_certificate.pem", "gateway_key.pem"):
        run(
            [
                "install",
                "-m",
                "640",
                "-g",
                "10001",
                tmp_path / "ca" / "127.0.0.1.pem",
                project.folder / "secrets" / name,
            ]
        )
    files = ("-f", "docker-compose.yml", "-f", "docker-compose.tls.yml")
    project.compose(*files, "up", "-d", "--no-deps", "nginx")
    project.wait_until_well()
    trusted = ssl.create_default_context(cafile=str(authority.file))
    url = f"https://127.0.0.1:{project.port}/api/v1/server"
    assert httpx.get(url, verify=trusted, trust_env=False).status_code == 200
    plain = httpx.get(f"{project.url}/api/v1/server", trust_env=False)
    assert (plain.status_code, plain.json()["code"]) == (400, "tls_required")
