"""A real RabbitMQ takes the configuration that the overlays render, with the secrets that an operator makes."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aio_pika
import pytest

from deploy.manifests import operators
from deploy.manifests.objects import Object, of_kind
from deploy.manifests.render import OVERLAYS
from peers.certificates import Authority
from servers.found import RABBITMQ, first, program
from servers.life import Processes, free_port, wait_for_port
from services import secret_files
from services.deployment import BROKER_SERVER, DATABASE_SERVER, SECRETS, Deployment
from services.kernel import amqp

START_SECONDS = 90.0
_DEBIAN = ("/usr/lib/rabbitmq/bin",)
# Of the overlays' configuration, where this node has its own: it is alone, and takes other ports.
_PORTS = {"small": 5672, "production": 5671, "operators": 5671}
_METRICS_PORTS = {"small": 15692, "production": 15692, "operators": 15691}
# Where the overlay has its secrets and its certificate.
_FOLDERS = {
    "small": ("/run/secrets", None),
    "production": ("/run/secrets", "/run/certificate"),
    "operators": ("/etc/medperf", "/etc/rabbitmq-tls"),
}


@dataclass
class Node:
    """A broker with an overlay's configuration."""

    port: int
    metrics_port: int
    secrets: Path
    authority: Path

    def url(self, server: str) -> str:
        """How the results service's worker reaches it where MEDPERF_BROKER_SERVER is this."""
        told = {DATABASE_SERVER: "postgresql://nowhere:5432", BROKER_SERVER: server, SECRETS: str(self.secrets)}
        return Deployment.from_environment(told).broker_url("results")


@contextmanager
def node_of(overlay: str, objects: list[Object], folder: Path) -> Iterator[Node]:
    """Debian's RabbitMQ, started with an overlay's configuration; its paths and ports are this test's."""
    secret_files.create(folder / "secrets")
    authority = Authority(folder / "authority")
    authority.server("localhost")
    chain = folder / "authority" / "localhost.pem"
    node = Node(free_port(), free_port(), folder / "secrets", authority.file)
    configuration, plugins = _configuration(objects)
    lines = [line for line in configuration.splitlines() if not line.startswith("cluster_formation")]
    text = "\n".join(lines) + "\n"
    secrets, certificates = _FOLDERS[overlay]
    own = {
        secrets: str(node.secrets),
        f"= {_PORTS[overlay]}\n": f"= {node.port}\n",
        f"= {_METRICS_PORTS[overlay]}\n": f"= {node.metrics_port}\n",
    }
    if certificates is not None:
        own |= {f"{certificates}/tls.crt": str(chain), f"{certificates}/tls.key": str(chain)}
    for told, here in own.items():
        assert told in text, told
        text = text.replace(told, here)
    (folder / "rabbitmq.conf").write_text(text)
    (folder / "plugins").write_text(plugins)
    with ExitStack() as stack:
        installed = partial(program, "rabbitmq-server", package="rabbitmq-server", folders=_DEBIAN)
        start = first("RabbitMQ", RABBITMQ, [installed])
        epmd_port = free_port()
        kill = ["epmd", "-port", str(epmd_port), "-kill"]
        stack.callback(subprocess.run, kill, capture_output=True, check=False, timeout=60)
        life = Processes([str(start)], log=folder / "log", environment=_environment(folder, epmd_port))
        stack.callback(life.kill)
        life.start()
        wait_for_port(node.port, of=life, seconds=START_SECONDS)
        yield node


def _configuration(objects: list[Object]) -> tuple[str, str]:
    """What a node reads, and its plugins: of our own ConfigMap, or what the operator makes of its object."""
    for item in objects:
        if operators.kind_of(item) == operators.BROKER:
            added = item["spec"]["rabbitmq"]["additionalConfig"]
            return operators.BROKERS_OWN_CONFIGURATION + added, "[rabbitmq_prometheus]."
    [data] = [item["data"] for item in of_kind(objects, "ConfigMap") if "rabbitmq.conf" in item["data"]]
    return data["rabbitmq.conf"], data["enabled_plugins"]


def _environment(folder: Path, epmd_port: int) -> dict[str, str]:
    (folder / ".erlang.cookie").write_text((folder / "secrets" / "erlang_cookie").read_text())
    (folder / ".erlang.cookie").chmod(0o400)
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "RABBITMQ_NODENAME": "k1@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_consumes_from_a_broker_with_an_overlays_configuration(
    rendered: Callable[[str], list[Object]], overlay: str, tmp_path: Path
) -> None:
    with node_of(overlay, rendered(overlay), tmp_path) as node:
        has_tls = overlay != "small"
        with_tls = f"amqps://localhost:{node.port}?cafile={node.authority}"
        asyncio.run(_consume(node.url(with_tls if has_tls else f"amqp://localhost:{node.port}")))
        scheme = "https" if overlay == "operators" else "http"
        trusted = ssl.create_default_context(cafile=node.authority) if scheme == "https" else None
        address = f"{scheme}://localhost:{node.metrics_port}/metrics"
        with urllib.request.urlopen(address, timeout=10, context=trusted) as metrics:
            assert b"rabbitmq_" in metrics.read()
        if has_tls:
            stranger = f"amqps://localhost:{node.port}"
            with pytest.raises(aio_pika.exceptions.AMQPConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
                asyncio.run(_consume(node.url(stranger)))


async def _consume(url: str) -> None:
    """As the results service's own user, from a queue that the definitions made."""
    async with await amqp.connect(url, "a test of the manifests") as connection:
        queue = await (await connection.channel()).get_queue("results.record_association")
        assert queue.declaration_result.consumer_count == 0
