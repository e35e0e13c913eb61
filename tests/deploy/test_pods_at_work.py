"""Each pod's process at work with what its pod gives it and nothing else: its secrets, settings and command."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deploy.manifests.objects import Object, Workload, named, of_kind, workloads
from servers.life import Processes, free_port
from servers.postgresql import postgresql
from servers.rabbitmq import rabbitmq
from services.deployment import BROKER_SERVER, DATABASE_ADMIN_PASSWORD, DATABASE_SERVER, SECRETS

READY_SECONDS = 90.0
COMMAND_SECONDS = 120.0
_PROGRAM = [sys.executable, "-m", "services.main"]


@dataclass
class Cluster:
    """The pods of an overlay as processes of this machine, on its own PostgreSQL and RabbitMQ."""

    objects: list[Object]
    folder: Path
    servers: Mapping[str, str]
    database_admin_password: str

    def environment(self, pod: Workload) -> dict[str, str]:
        """What the pod's container is told; the secrets that it mounts are files of a folder of its own."""
        folder = self.folder / pod.title.replace(" ", "-")
        folder.mkdir(exist_ok=True)
        for volume in pod.spec["volumes"]:
            if volume["name"] != "secrets":
                continue
            secret = named(self.objects, "Secret", volume["secret"]["secretName"])
            assert secret is not None
            for item in volume["secret"]["items"]:
                (folder / item["path"]).write_bytes(base64.b64decode(secret["data"][item["key"]]))
        if (folder / DATABASE_ADMIN_PASSWORD).exists():
            (folder / DATABASE_ADMIN_PASSWORD).write_text(self.database_admin_password)
        [settings] = [item["data"] for item in of_kind(self.objects, "ConfigMap") if SECRETS in item["data"]]
        told = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
        return {**told, **settings, **self.servers, SECRETS: str(folder)}

    def pod(self, kind: str, name: str) -> Workload:
        return next(pod for pod in workloads(self.objects) if (pod.kind, pod.name) == (kind, name))

    def run(self, pod: Workload, *arguments: str, given: str | None = None) -> str:
        """A command in the pod; what it printed."""
        done = subprocess.run(
            [*_PROGRAM, *arguments],
            env=self.environment(pod),
            input=given,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{pod.title}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, pod: Workload) -> tuple[Processes, int]:
        """The pod's own command, on a free port for each of its own; and the port of its monitor."""
        ports = {str(port["containerPort"]): str(free_port()) for port in pod.ports}
        arguments = [ports.get(argument, argument) for argument in pod.spec["containers"][0]["args"]]
        life = Processes(
            [*_PROGRAM, *arguments], log=self.folder / f"{pod.name}.log", environment=self.environment(pod)
        )
        life.start()
        return life, int(ports[str(pod.number_of("monitor"))])


@contextmanager
def cluster_of(objects: list[Object], folder: Path) -> Iterator[Cluster]:
    """The servers, with the broker's definitions as its own pod gets them."""
    secret = next(item for item in of_kind(objects, "Secret") if item["metadata"]["name"].startswith("broker-"))
    definitions = json.loads(base64.b64decode(secret["data"]["rabbitmq_definitions.json"]))
    with postgresql(fsync=False, options={"max_connections": "300"}) as database, rabbitmq(definitions) as broker:
        servers = {
            DATABASE_SERVER: f"postgresql://{database.host}:{database.port}",
            BROKER_SERVER: f"amqp://{broker.host}:{broker.port}",
        }
        yield Cluster(objects, folder, servers, database.password)


def _wait_until_ready(pod: Workload, life: Processes, monitor: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    last = "it does not answer"
    while time.monotonic() < deadline and life.is_running():
        try:
            answer = httpx.get(f"http://127.0.0.1:{monitor}/ready", timeout=10, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.2)
            continue
        if answer.status_code == 200:
            return
        last = answer.text
        time.sleep(0.2)
    pytest.fail(f"{pod.title} is not ready: {last}\n{life.tail()}")


def test_every_pod_is_ready_with_its_own_secrets_alone(
    rendered: Callable[[str], list[Object]], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(cluster_of(rendered("small"), tmp_path))
        for job in ("provision", "migrate"):
            pod = cluster.pod("Job", job)
            cluster.run(pod, *pod.spec["containers"][0]["args"])
        started = []
        for pod in workloads(cluster.objects):
            if pod.kind == "Deployment" and pod.spec["containers"][0]["name"] == "server":
                life, monitor = cluster.start(pod)
                stack.callback(life.kill)
                started.append((pod, life, monitor))
        assert len(started) == 9
        for pod, life, monitor in started:
            _wait_until_ready(pod, life, monitor)
        operator = cluster.pod("CronJob", "operator")
        cluster.run(operator, "user", "add", "first", "--admin", "--password-stdin", given="a long password\n")
        assert "first" in cluster.run(operator, "user", "ls")
        for _, life, _ in started:
            life.stop()
