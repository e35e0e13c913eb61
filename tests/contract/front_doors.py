"""Both front doors for real: nginx before service processes, and an embedded server; each with ada's account."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from contract.gateway_requests import ADA_LOGIN, ASSET, ASSET_CONTENT, FOLDER, JSON, LINK, LOGIN, PARTIAL, Ask
from medperf_contracts.access import SERVICES
from peers.certificates import Authority
from peers.name_server import NameServer
from servers.life import Processes, free_port, wait_for_port
from servers.nginx import NginxServer, as_the_tests, find_nginx
from service.served import ADA, run, servers
from services.accounts import signing_keys
from services.gateway.nginx import Gateway, Tls, render

START_SECONDS, ANSWER_SECONDS = 60.0, 20.0
VALID_SECONDS = 1
ONE_SERVICE = Path(__file__).with_name("gateway_services.py")


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        return str(json.loads(self.body)["code"]) if self.body and self.status >= 400 else None

    @property
    def media(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]


class Door:
    """One front door, and ada's token behind it."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.port, self._tls = port, tls
        self._token = ""

    def log_in(self) -> Self:
        answer = self.send("POST", LOGIN, {"Content-Type": JSON}, ADA_LOGIN)
        assert answer.status == 200, answer
        self._token = json.loads(answer.body)["access_token"]
        return self

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    def ask(self, ask: Ask) -> Answer:
        headers = {**(self.authorization if ask.is_logged_in else {}), **ask.headers}
        return self.send(ask.method, ask.target, headers, ask.body, is_chunked=ask.is_chunked)

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        is_chunked: bool = False,
        is_plain: bool = False,
    ) -> Answer:
        """One request on a connection of its own, its target as it is written."""
        connection: http.client.HTTPConnection
        if self._tls is None or is_plain:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        else:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=ANSWER_SECONDS, context=self._tls
            )
        sent = {"Host": f"127.0.0.1:{self.port}", "Connection": "close", **(headers or {})}
        if is_chunked:
            sent["Transfer-Encoding"] = "chunked"
        elif body is not None:
            sent["Content-Length"] = str(len(body))
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders()
            try:
                for at in range(0, len(body or b""), 65536):
                    part = (body or b"")[at : at + 65536]
                    connection.send(b"%x\r\n%s\r\n" % (len(part), part) if is_chunked else part)
                if is_chunked:
                    connection.send(b"0\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
                pass  # it was answered before it was sent
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, named, response.read())
        finally:
            connection.close()


class Replica:
    """A process of services, on an address."""

    def __init__(self, store: Path, host: str, ports: Mapping[str, int]) -> None:
        self._host, self._ports = host, ports
        served = [f"{service}={port}" for service, port in ports.items()]
        self._life = Processes(
            [sys.executable, str(ONE_SERVICE), str(store), host, *served],
            log=store.with_name(f"{host}.log"),
            environment={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._life.start()

    def wait(self) -> Self:
        for port in self._ports.values():
            wait_for_port(port, of=self._life, seconds=START_SECONDS, host=self._host)
        return self

    def kill(self) -> None:
        self._life.kill()


class Deployment:
    """nginx, a name server, and the services' processes on one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.log = folder / "access.log"
        self._stack = ExitStack()
        self.names = self._stack.enter_context(NameServer())
        self.port, self.monitor_port = free_port(), free_port()
        self.ports = {service: free_port() for service in SERVICES}
        self.replicas: list[Replica] = []
        self.nginx: NginxServer | None = None
        prepare_store(self.store)
        signing_keys.create_signing_key(self.store / "signing_key.json")
        self.authority = Authority(folder / "ca")
        self.authority.server("127.0.0.1")

    @property
    def door(self) -> Door:
        return self.door_at(self.port)

    def door_at(self, port: int) -> Door:
        return Door(port, tls=ssl.create_default_context(cafile=self.authority.file))

    def start(self) -> None:
        """One replica of every service, and nginx before them."""
        self.begin("127.0.0.1", *SERVICES).wait()
        for service in SERVICES:
            self.name(service, "127.0.0.1")
        self.nginx, _ = self.gateway(self.folder, port=self.port)

    def gateway(self, folder: Path, *, port: int, **changed: Any) -> tuple[NginxServer, Door]:
        """An nginx before the services; `changed` are settings of it."""
        folder.mkdir(exist_ok=True)
        chain = str(self.folder / "ca" / "127.0.0.1.pem")
        gateway = Gateway(
            upstreams={service: f"{service}.test:{port}" for service, port in self.ports.items()},
            resolver=f"127.0.0.1:{self.names.port} valid={VALID_SECONDS}s ipv6=off",
            listen=f"127.0.0.1:{port}",
            **{
                "monitor": f"127.0.0.1:{self.monitor_port}",
                "tls": Tls(chain, chain),
                "assets": str(self.store / "assets"),
                "folder": str(folder),
                "access_log": str(folder / "access.log"),
                "requests_a_second": 10_000,
                "logins_a_minute": 6_000,
                **changed,
            },
        )
        (folder / "nginx.conf").write_text(render(gateway))
        server = NginxServer(find_nginx(), folder, port=port)
        server.start()
        return server, self.door_at(port)

    def begin(self, address: str, *services: str) -> Replica:
        """One more replica, which the name server does not know yet."""
        replica = Replica(self.store, address, {service: self.ports[service] for service in services})
        self.replicas.append(replica)
        return replica

    def name(self, service: str, *addresses: str) -> None:
        self.names.names[f"{service}.test"] = list(addresses)

    @contextmanager
    def only(self, service: str, *addresses: str) -> Iterator[None]:
        """The service has these addresses, and nginx has heard of it."""
        known = self.names.names[f"{service}.test"]
        self.name(service, *addresses)
        time.sleep(VALID_SECONDS + 1.2)  # nginx counts in whole seconds
        try:
            yield
        finally:
            self.name(service, *known)
            time.sleep(VALID_SECONDS + 1.2)  # nginx counts in whole seconds

    def lines(self) -> list[dict[str, str]]:
        """nginx's access log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def line_of(self, request_id: str) -> dict[str, str]:
        """What is logged of a request, which is a moment after it was answered."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            for line in self.lines():
                if line["request_id"] == request_id:
                    return line
            time.sleep(0.05)
        pytest.fail(f"nothing is logged of the request {request_id}")

    def stop(self) -> None:
        for replica in self.replicas:
            replica.kill()
        self._stack.close()
        if self.nginx is not None:
            self.nginx.stop()


@contextmanager
def deployment(folder: Path) -> Iterator[Deployment]:
    """A deployment that is not started yet; nothing of it is left at the end."""
    folder.mkdir(exist_ok=True)
    made = Deployment(folder)
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def embedded(folder: Path) -> Iterator[Door]:
    """A `medperf-server up`, with ada's account and the same assets."""
    prepare_store(folder)
    with servers(folder) as start:
        server = start()
        yield Door(int(server.url.rpartition(":")[2]))


def prepare_store(folder: Path) -> None:
    """A store with ada's account, and assets of every kind, good and bad."""
    for user in (("root", "--admin"), (ADA["username"],)):
        added = run(folder, "user", "add", *map(str, user), "--password-stdin", typed=f"{ADA['password']}\n")
        assert added.returncode == 0, added
    assets = folder / "assets"
    (assets / FOLDER).mkdir(parents=True)
    (assets / ASSET).write_bytes(ASSET_CONTENT)
    (assets / PARTIAL).write_bytes(b"half of it")
    (assets / LINK).symlink_to(folder / "signing_key.json")


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Whoever connects is not answered."""
    with socket.create_server((host, port)) as listener:
        yield listener


@contextmanager
def breaking(host: str, port: int) -> Iterator[None]:
    """Whoever connects is listened to, and then the connection is reset."""
    with listening(host, port) as listener:

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if not connection.recv(65536):
                        return
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            socket.create_connection((host, port)).close()
            thread.join()


def check_configuration(folder: Path, configuration: str) -> str:
    """What nginx has against it: errors and warnings."""
    (folder / "nginx.conf").write_text(configuration)
    argv = [find_nginx(), "-p", f"{folder}/", "-c", "nginx.conf", "-e", "stderr", "-g", as_the_tests(), "-t", "-q"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
