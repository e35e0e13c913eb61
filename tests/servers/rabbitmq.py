"""A real RabbitMQ for tests: one node, or a cluster of three."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import pytest

from .found import LOOPBACK, RABBITMQ, first, named, program
from .life import Foreign, Life, Processes, Server, free_port, wait_for_port

if TYPE_CHECKING:
    from .container import Container

IMAGE = "rabbitmq:4-alpine"
ADMINISTRATOR = "administrator"
START_SECONDS, CTL_SECONDS = 90.0, 90
_DEBIAN = ("/usr/lib/rabbitmq/bin",)
Definitions = Mapping[str, Any]


def password_hash(password: str) -> str:
    """As RabbitMQ's definitions keep a password: salted SHA-256."""
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def with_administrator(definitions: Definitions, password: str) -> dict[str, Any]:
    """The definitions, and an administrator who may do everything in each of their vhosts."""
    vhosts = [*definitions.get("vhosts", [])]
    if not any(vhost["name"] == "/" for vhost in vhosts):
        vhosts.append({"name": "/"})
    user = {"name": ADMINISTRATOR, "password_hash": password_hash(password), "tags": ["administrator"]}
    user["hashing_algorithm"] = "rabbit_password_hashing_sha256"
    everything = {"user": ADMINISTRATOR, "configure": ".*", "write": ".*", "read": ".*"}
    others = [each for each in definitions.get("users", []) if each["name"] != ADMINISTRATOR]
    theirs = [each for each in definitions.get("permissions", []) if each["user"] != ADMINISTRATOR]
    return {
        **definitions,
        "vhosts": vhosts,
        "users": [*others, user],
        "permissions": [*theirs, *({**everything, "vhost": vhost["name"]} for vhost in vhosts)],
    }


class RabbitmqServer(Server):
    """A node, its administrator, and its processes."""

    def __init__(self, life: Life, *, host: str, port: int, user: str, password: str) -> None:
        super().__init__(life)
        self.host, self.port, self.user, self.password = host, port, user, password

    @property
    def url(self) -> str:
        """The administrator's, in the vhost `/`."""
        return self.url_of(self.user, self.password)

    def url_of(self, user: str, password: str, vhost: str = "") -> str:
        """A user's, in a vhost (the empty one is `/`)."""
        return f"amqp://{quote(user)}:{quote(password, safe='')}@{self.host}:{self.port}/{quote(vhost, safe='')}"

    @property
    def pid(self) -> int:
        """Of the node itself (beam.smp)."""
        for pid in self.pids:
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("beam"):
                    return pid
        pytest.fail(f"RabbitMQ does not run:\n{self.tail()}")

    def wait_until_ready(self) -> None:
        """Until it speaks AMQP: a node that starts listens for a while before."""
        wait_for_port(self.port, of=self._life, seconds=START_SECONDS, host=self.host, hello=b"AMQP\0\0\x09\x01")

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` answers; fails where it does. It takes some two seconds."""
        pytest.fail(f"rabbitmqctl {arguments} needs a server of the tests' own: run without {RABBITMQ}")

    def load(self, definitions: Definitions) -> None:
        """Add the definitions to those that it has."""
        self.ctl("eval", _IMPORT.format(json.dumps(base64.b64encode(json.dumps(definitions).encode()).decode())))
        self.settle()

    def settle(self) -> None:
        """Have it write down which queues it has: a node killed within seconds of a queue's making loses it."""
        self.ctl("eval", "[ok = dets:sync(Table) || Table <- dets:all()].")


# `import_definitions FILE` needs a file that the node can read; this takes the content itself.
_IMPORT = "{{ok, Map}} = rabbit_json:try_decode(base64:decode({})), ok = rabbit_definitions:import_parsed(Map)."


class _ContainerNode(RabbitmqServer):
    def __init__(self, life: Container, *, password: str) -> None:
        super().__init__(life, host=LOOPBACK, port=life.port, user=ADMINISTRATOR, password=password)
        self._container = life

    def ctl(self, *arguments: str) -> str:
        return self._container.run("rabbitmqctl", *arguments)


@dataclass
class _Place:
    """What the nodes of one cluster share: a folder, a cookie and a port mapper of their own."""

    folder: Path
    programs: Path
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    epmd_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (self.folder / "plugins").write_text("[].")

    def end(self) -> None:
        """The port mapper outlives the nodes."""
        kill = ["epmd", "-port", str(self.epmd_port), "-kill"]
        subprocess.run(kill, capture_output=True, check=False, timeout=CTL_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)


class _Node(RabbitmqServer):
    def __init__(self, place: _Place, name: str, *, configuration: Sequence[str]) -> None:
        self.node, self._place = f"{name}@localhost", place
        port = free_port()
        folder = place.folder / name
        folder.mkdir()
        (folder / "rabbitmq.conf").write_text("".join(f"{line}\n" for line in configuration))
        self._environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(place.folder),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": str(place.epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(place.folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        server = [str(place.programs / "rabbitmq-server")]
        life = Processes(server, log=folder / "log", environment=self._environment)
        super().__init__(life, host=LOOPBACK, port=port, user=ADMINISTRATOR, password=place.password)

    def ctl(self, *arguments: str) -> str:
        done = subprocess.run(
            [self._place.programs / "rabbitmqctl", "--node", self.node, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CTL_SECONDS,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"rabbitmqctl {arguments} failed: {done.stdout}{done.stderr}\n{self.tail()}")
        return done.stdout


@contextmanager
def rabbitmq(
    definitions: Definitions | None = None, *, configuration: Sequence[str] = ()
) -> Iterator[RabbitmqServer]:
    """A node with these definitions and an administrator: the one that the environment names, else an own one.

    `configuration` are lines of rabbitmq.conf; a node that is named, or in a container, has its own.
    """
    with ExitStack() as stack:
        ways = (
            partial(_named, definitions),
            partial(_in_container, stack, definitions or {}),
            partial(_of_debian, stack, definitions or {}, configuration),
        )
        yield first("RabbitMQ", RABBITMQ, ways)


@contextmanager
def rabbitmq_cluster(
    definitions: Definitions | None = None, *, configuration: Sequence[str] = ()
) -> Iterator[list[RabbitmqServer]]:
    """Three nodes of Debian's package as one cluster, up in some 20 s. Quorum queues then have three members."""
    with ExitStack() as stack:
        yield first("a RabbitMQ cluster", RABBITMQ, [partial(_cluster, stack, definitions or {}, configuration)])


def _named(definitions: Definitions | None) -> RabbitmqServer:
    url = urlsplit(named(RABBITMQ))
    life = Foreign(RABBITMQ)
    server = RabbitmqServer(
        life,
        host=url.hostname or LOOPBACK,
        port=url.port or 5672,
        user=unquote(url.username or "guest"),
        password=unquote(url.password or "guest"),
    )
    wait_for_port(server.port, of=life, seconds=5.0, host=server.host)
    if definitions:
        pytest.fail(f"{RABBITMQ} names a server, and this test needs one with its own definitions: run it without")
    return server


def _in_container(stack: ExitStack, definitions: Definitions) -> RabbitmqServer:
    from .container import Container  # docker's library is slow to import

    password = secrets.token_urlsafe(12)
    environment = {"RABBITMQ_DEFAULT_USER": ADMINISTRATOR, "RABBITMQ_DEFAULT_PASS": password}
    life = Container(IMAGE, port=5672, environment=environment)
    life.start()
    stack.callback(life.remove)
    server = _ContainerNode(life, password=password)
    server.wait_until_ready()
    server.ctl("await_startup")
    server.load(with_administrator(definitions, password))
    return server


def _place(stack: ExitStack) -> _Place:
    programs = program("rabbitmq-server", package="rabbitmq-server", folders=_DEBIAN).parent
    place = _Place(Path(tempfile.mkdtemp(prefix="medperf-rabbitmq-")), programs)
    stack.callback(place.end)
    return place


def _of_debian(stack: ExitStack, definitions: Definitions, configuration: Sequence[str]) -> RabbitmqServer:
    place = _place(stack)
    file = place.folder / "definitions.json"
    file.write_text(json.dumps(with_administrator(definitions, place.password)))
    node = _Node(place, "r1", configuration=[f"load_definitions = {file}", *configuration])
    stack.callback(node.kill)
    node.start()
    if definitions:
        node.settle()
    return node


def _cluster(stack: ExitStack, definitions: Definitions, configuration: Sequence[str]) -> list[RabbitmqServer]:
    place = _place(stack)
    names = ("r1", "r2", "r3")
    found = ["cluster_formation.peer_discovery_backend = classic_config"]
    found += [f"cluster_formation.classic_config.nodes.{i} = {name}@localhost" for i, name in enumerate(names, 1)]
    nodes = [_Node(place, name, configuration=[*found, *configuration]) for name in names]
    for node in nodes:
        stack.callback(node.kill)
        node._life.start()
    for node in nodes:
        node.wait_until_ready()
    nodes[0].ctl("await_online_nodes", "3")
    # After the cluster is whole: a queue that is made before has fewer members.
    nodes[0].load(with_administrator(definitions, place.password))
    for node in nodes[1:]:
        node.settle()
    return list(nodes)
