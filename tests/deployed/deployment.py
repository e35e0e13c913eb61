"""A whole deployment on this machine: nginx, two web processes and a worker of each service, RabbitMQ, PostgreSQL.

Every process is real and a child of the test: it can be killed, frozen and started again where it was.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployed.network import Cable, cable, forwarder
from medperf_contracts.access import SERVICES
from peers.name_server import NameServer
from servers.found import LOOPBACK
from servers.life import Processes, free_port
from servers.nginx import NginxServer, find_nginx
from servers.postgresql import PostgresqlServer, postgresql
from servers.rabbitmq import RabbitmqServer, rabbitmq, rabbitmq_cluster
from services import secret_files
from services.composition import DEFINITIONS
from services.gateway.nginx import Gateway, render
from services.kernel import topology

READY_SECONDS = 90.0
COMMAND_SECONDS = 120.0
MORTAL = Path(__file__).with_name("mortal.py")
SETTINGS = {"max_connections": "300"}
WORKERS = tuple(each.name for each in DEFINITIONS if each.publishes or each.consumers)


@dataclass
class Peer:
    """One process of a service, and where its monitor answers."""

    name: str
    life: Processes
    monitor: str
    moments: Path
    """Where it is told when to die."""

    def problem(self) -> str | None:
        """What is missing until it is ready; None once it is."""
        try:
            answer = httpx.get(f"http://{self.monitor}/ready", timeout=10, trust_env=False)
        except httpx.TransportError as error:
            return f"{self.name}: {error!r}"
        return None if answer.status_code == 200 else f"{self.name}: {answer.text}"


@dataclass
class Deployment:
    """What runs, and the environment of its processes and of the operator's commands."""

    folder: Path
    postgresql: PostgresqlServer
    brokers: list[RabbitmqServer]
    names: NameServer
    cable: Cable | None = None
    """Between the workers and all else."""
    environment: dict[str, str] = field(default_factory=dict)
    workers_environment: dict[str, str] = field(default_factory=dict)
    """What workers have instead, where a cable is between."""
    clocks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By process: what shifts its clock."""
    webs: dict[str, list[Peer]] = field(default_factory=dict)
    workers: dict[str, list[Peer]] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    nginx: NginxServer | None = None

    @property
    def rabbitmq(self) -> RabbitmqServer:
        """The only node, or the first."""
        return self.brokers[0]

    @property
    def url(self) -> str:
        """The front door."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def home(self) -> Path:
        """Where what is served under `/assets` lies, as in an embedded server's store."""
        return self.folder

    @property
    def database_server(self) -> dict[str, Any]:
        """For a connection of the test's own, as the administrator."""
        server = self.postgresql
        return {"host": server.host, "port": server.port, "user": server.user, "password": server.password}

    @property
    def peers(self) -> list[Peer]:
        return [peer for peers in (*self.webs.values(), *self.workers.values()) for peer in peers]

    def command(self, *arguments: str, given: str | None = None) -> str:
        """A `medperf-server` command of the operator's; what it printed."""
        done = subprocess.run(
            [*_PROGRAM, *arguments],
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"medperf-server {arguments}\n{done.stdout}{done.stderr}"
        return done.stdout

    def rows(self, service: str, query: str) -> list[tuple[object, ...]]:
        """What a service's database holds, read beside it."""
        return [tuple(row.values()) for row in self.postgresql.fetch(query, database=service)]

    def add_accounts(self, names: Iterable[str], password: str, *, administrator: str) -> None:
        """As `medperf-server user add` does, all in one process: not the tests' own, whose log it would change."""
        done = subprocess.run(
            [sys.executable, "-c", _ADD_ACCOUNTS, administrator, *names],
            env={**self.environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            input=password,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def start(self, *, replicas: int, workers: int, gateway: Mapping[str, int]) -> None:
        """Start every process, and wait until all of it is ready."""
        self.command("provision")
        self.command("migrate")
        for number, service in enumerate(SERVICES, 1):
            port = free_port()
            addresses = [f"127.0.{number}.{replica}" for replica in range(1, replicas + 1)]
            self.webs[service] = [self._web(service, address, port) for address in addresses]
            self.names.names[f"{service}.test"] = addresses
        for service in WORKERS:
            self.workers[service] = [self._worker(service, number) for number in range(1, workers + 1)]
        for peer in self.peers:
            peer.life.start()
        self._open_front_door(gateway)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        for peer in self.peers:
            while problem := peer.problem():
                if time.monotonic() > deadline or not peer.life.is_running():
                    pytest.fail(f"{problem}\n{peer.life.tail()}")
                time.sleep(0.1)

    def stop(self) -> None:
        """End all of it, in order."""
        for peer in self.peers:
            if peer.life.is_running():
                peer.life.stop()
        if self.nginx is not None:
            self.nginx.stop()

    def kill(self) -> None:
        """End whatever still runs."""
        for peer in self.peers:
            peer.life.kill()
        if self.nginx is not None:
            self.nginx.kill()

    def _web(self, service: str, address: str, port: int) -> Peer:
        monitor = free_port()
        argv = ["run", service, "--host", address, "--port", str(port), "--monitor-port", str(monitor)]
        return self._peer(f"{service} {address}", argv, f"{address}:{monitor}", self.environment)

    def _worker(self, service: str, number: int) -> Peer:
        monitor, host = free_port(), LOOPBACK if self.cable is None else self.cable.there
        argv = ["work", service, "--host", host, "--monitor-port", str(monitor)]
        environment = {**self.environment, **self.workers_environment}
        return self._peer(f"{service} worker {number}", argv, f"{host}:{monitor}", environment)

    def _peer(self, name: str, argv: list[str], monitor: str, environment: Mapping[str, str]) -> Peer:
        moments = self.folder / "moments" / name
        moments.mkdir(parents=True)
        life = Processes(
            [sys.executable, str(MORTAL), str(moments), *argv],
            log=self.folder / f"{name}.log",
            environment={**environment, **self.clocks.get(name, {}), "PYTHONPATH": os.pathsep.join(sys.path)},
            user=self.cable.inside if self.cable is not None and argv[0] == "work" else (),
        )
        return Peer(name, life, monitor, moments)

    def _open_front_door(self, limits: Mapping[str, int]) -> None:
        folder = self.folder / "nginx"
        folder.mkdir()
        (self.folder / "assets").mkdir()
        ports = {service: peers[0].life.argv[-3] for service, peers in self.webs.items()}
        gateway = Gateway(
            upstreams={service: f"{service}.test:{port}" for service, port in ports.items()},
            resolver=f"{LOOPBACK}:{self.names.port} valid=1s ipv6=off",
            listen=f"{LOOPBACK}:{self.port}",
            monitor=f"{LOOPBACK}:{free_port()}",
            tls=None,
            assets=str(self.folder / "assets"),
            folder=str(folder),
            access_log=str(folder / "access.log"),
            **{"requests_a_second": 100_000, "logins_a_minute": 60_000, **limits},
        )
        (folder / "nginx.conf").write_text(render(gateway))
        self.nginx = NginxServer(find_nginx(), folder, port=self.port)
        self.nginx.start()


_PROGRAM = [sys.executable, "-m", "services.main"]
_ADD_ACCOUNTS = """
import sys
from services.operator import operator

password, (administrator, *names) = sys.stdin.read(), sys.argv[1:]
with operator() as person:
    for name in (administrator, *names):
        person.post("users", {"username": name, "password": password, "is_admin": name == administrator})
"""


@contextmanager
def deployment(
    folder: Path,
    *,
    replicas: int = 2,
    workers: int = 1,
    gateway: Mapping[str, int] | None = None,
    database: PostgresqlServer | None = None,
    secrets: Path | None = None,
    has_cable: bool = False,
    has_cluster: bool = False,
    clocks: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Deployment]:
    """A deployment at work on servers of its own, or on a database that is there; it is ended at the end."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    made = secrets or folder / "secrets"
    secret_files.create(made)
    passwords = {user: (made / name).read_text() for user, name in secret_files.BROKER_USERS.items()}
    definitions = topology.definitions(DEFINITIONS) | topology.users(DEFINITIONS, passwords)
    with ExitStack() as stack:
        # A kill loses no commit without fsync either: it is the machine's cache that holds it.
        database = database or stack.enter_context(postgresql(fsync=False, options=SETTINGS))
        if has_cluster:
            brokers = stack.enter_context(rabbitmq_cluster(definitions))
        else:
            brokers = [stack.enter_context(rabbitmq(definitions))]
        names = stack.enter_context(NameServer())
        (made / "database_admin_password").write_text(database.password)
        whole = Deployment(folder, database, brokers, names, clocks=clocks or {})
        whole.environment = {
            **os.environ,
            "MEDPERF_DATABASE_SERVER": f"postgresql://{database.host}:{database.port}",
            "MEDPERF_BROKER_SERVER": f"amqp://{brokers[0].host}:{brokers[0].port}",
            "MEDPERF_SECRETS": str(made),
            "MEDPERF_SERVER_HOME": str(folder),
            "PYTHONUNBUFFERED": "1",
        }
        if has_cable:
            whole.cable = stack.enter_context(cable())
            for variable, scheme, ports in (
                ("MEDPERF_DATABASE_SERVER", "postgresql", [database.port]),
                ("MEDPERF_BROKER_SERVER", "amqp", [broker.port for broker in brokers]),
            ):
                here = whole.cable.here
                port = stack.enter_context(forwarder(here, ports, folder / f"{scheme} forwarder.log"))
                whole.workers_environment[variable] = f"{scheme}://{here}:{port}"
        stack.callback(whole.kill)
        whole.start(replicas=replicas, workers=workers, gateway=gateway or {})
        yield whole
