"""The tests' own servers: found in the order that is promised, and killed, frozen and started again for real."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import aio_pika
import asyncpg
import httpx
import pytest

from servers import container, found
from servers.life import free_port, is_alive, tree
from servers.nginx import find_nginx, nginx
from servers.postgresql import PostgresqlServer, postgresql
from servers.rabbitmq import rabbitmq, rabbitmq_cluster, with_administrator

NO_SERVER = """
from servers.postgresql import postgresql

def test_asks_for_postgresql():
    with postgresql():
        pass
"""
DEFINITIONS = {
    "vhosts": [{"name": "medperf"}],
    "queues": [
        {
            "name": "kept",
            "vhost": "medperf",
            "durable": True,
            "auto_delete": False,
            "arguments": {"x-queue-type": "quorum"},
        }
    ],
}


def test_the_environment_comes_first_then_docker_then_debian() -> None:
    asked: list[str] = []

    def way(name: str, *, leads: bool) -> found.Way[str]:
        def go() -> str:
            asked.append(name)
            if not leads:
                raise found.NotHere(f"no {name}")
            return name

        return go

    ways = [way("named", leads=False), way("docker", leads=True), way("debian", leads=True)]
    assert found.first("a server", "VARIABLE", ways) == "docker"
    assert asked == ["named", "docker"]


def test_a_test_that_finds_no_server_fails_and_says_what_to_do(tmp_path: Path) -> None:
    """In a process of its own: nobody but root can install, no engine answers, nothing is named."""
    (tmp_path / "test_none.py").write_text(NO_SERVER)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "env").symlink_to("/usr/bin/env")
    hidden = f"import servers.postgresql as p; p._DEBIAN = ('{programs}',)"
    (tmp_path / "conftest.py").write_text(hidden)
    environment = {
        "PATH": str(programs),  # no apt-get
        "PYTHONPATH": str(Path(found.__file__).parents[1]),
        "DOCKER_HOST": f"unix://{tmp_path}/no.sock",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed" in done.stdout
    assert f"{found.POSTGRESQL} is not set" in done.stdout
    assert "no Docker engine answers" in done.stdout
    assert "postgresql is not installed" in done.stdout
    assert f"What to do: name one by {found.POSTGRESQL}" in done.stdout


def test_a_server_that_is_named_is_used_and_never_stopped(
    postgresql_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(found.POSTGRESQL, postgresql_server.url)
    with postgresql() as server:
        assert (server.host, server.port) == (postgresql_server.host, postgresql_server.port)
        assert server.fetch("SELECT 1")[0][0] == 1
        with pytest.raises(pytest.fail.Exception, match=found.POSTGRESQL):
            server.kill()
    assert postgresql_server.fetch("SELECT 1")[0][0] == 1


def test_a_server_that_is_named_and_does_not_answer_is_a_failure_and_no_other_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(found.POSTGRESQL, f"postgresql://postgres:pw@127.0.0.1:{free_port()}")
    with pytest.raises(pytest.fail.Exception, match="does not let us in"), postgresql():
        pass


def test_an_engine_without_a_registry_leads_on_within_bounded_time(base_image: str) -> None:
    """The engine is the one that the tests run with; no registry has this image."""
    began = time.monotonic()
    with pytest.raises(found.NotHere, match="cannot pull it"):
        container.Container("127.0.0.1:1/medperf/none:1", port=1, environment={})
    assert time.monotonic() - began < container.PULL_SECONDS


def test_postgresql_comes_back_on_its_port_with_what_was_committed() -> None:
    with postgresql() as server:
        server.create_database("kept")
        server.fetch("CREATE TABLE t AS SELECT 7 AS n", database="kept")
        assert server.fetch("SHOW fsync")[0][0] == "on"
        port, pids = server.port, server.pids
        assert len(pids) > 4  # the postmaster and its children, which make sessions of their own
        server.kill()
        assert not any(is_alive(pid) for pid in pids)
        with pytest.raises(OSError, match=r"refused|failed"):
            server.fetch("SELECT 1")
        server.start()
        assert server.port == port
        assert server.fetch("SELECT n FROM t", database="kept")[0][0] == 7
        server.restart()
        assert server.fetch("SELECT n FROM t", database="kept")[0][0] == 7


def test_a_frozen_postgresql_answers_nothing_until_it_is_thawed() -> None:
    with postgresql() as server:
        server.freeze()
        with pytest.raises((TimeoutError, asyncpg.PostgresError)):
            server.fetch("SELECT 1")
        server.thaw()
        assert server.fetch("SELECT 1")[0][0] == 1


async def publish_and_count(url: str, *, bodies: int) -> int:
    connection = await aio_pika.connect(url, timeout=10)
    async with connection:
        channel = await connection.channel()
        for number in range(bodies):
            message = aio_pika.Message(b"%d" % number, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, routing_key="kept", timeout=10)
        queue = await channel.get_queue("kept")
        return queue.declaration_result.message_count or 0


def test_rabbitmq_has_its_definitions_and_comes_back_with_what_it_confirmed() -> None:
    with rabbitmq(DEFINITIONS) as server:
        url = server.url_of(server.user, server.password, "medperf")
        asyncio.run(publish_and_count(url, bodies=3))
        assert "administrator" in server.ctl("list_users")
        pids = server.pids
        assert server.pid in pids
        server.kill()
        assert not any(is_alive(pid) for pid in pids)
        server.start()
        deadline = time.monotonic() + 20
        while (count := asyncio.run(publish_and_count(url, bodies=0))) != 3 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert count == 3
        server.load({"vhosts": [{"name": "later"}]})
        assert "later" in server.ctl("list_vhosts")


def test_of_a_cluster_of_three_nodes_one_can_be_killed() -> None:
    with rabbitmq_cluster(DEFINITIONS) as nodes:
        first, _, third = nodes
        urls = [node.url_of(node.user, node.password, "medperf") for node in nodes]
        deadline = time.monotonic() + 20
        while first.ctl("list_queues", "-p", "medperf", "members").count("@localhost") != 3:
            assert time.monotonic() < deadline
        asyncio.run(publish_and_count(urls[0], bodies=2))
        third.kill()
        assert asyncio.run(publish_and_count(urls[1], bodies=1)) >= 2
        third.start()
        first.ctl("await_online_nodes", "3")


def test_nginx_serves_and_its_workers_are_killed_with_it(nginx_binary: Path, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "nginx.conf").write_text(
        "daemon off; pid nginx.pid; events {} http { access_log off;"
        + "".join(f"{kind}_temp_path tmp/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        + f"server {{ listen 127.0.0.1:{port}; return 204; }} }}"
    )
    with nginx(nginx_binary, tmp_path, port=port) as server:
        assert httpx.get(f"http://127.0.0.1:{port}", trust_env=False).status_code == 204
        pids = server.pids
        assert len(pids) == 2
        server.kill()
        assert not any(is_alive(pid) for pid in pids)
        server.restart()
        assert httpx.get(f"http://127.0.0.1:{port}", trust_env=False).status_code == 204


def test_nginx_is_the_one_that_the_environment_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "nginx"
    shutil.copy(find_nginx(), copy)
    monkeypatch.setenv(found.NGINX, str(copy))
    assert find_nginx() == copy


def test_an_administrator_may_do_everything_in_every_vhost() -> None:
    permissions = with_administrator(DEFINITIONS, "secret")["permissions"]
    assert {each["vhost"] for each in permissions if each["user"] == "administrator"} == {"/", "medperf"}


def test_a_process_tree_holds_what_made_a_session_of_its_own() -> None:
    shell = subprocess.Popen(["sh", "-c", "setsid sleep 30 & echo started; wait"], stdout=subprocess.PIPE)
    try:
        assert shell.stdout is not None
        shell.stdout.readline()
        assert len(tree(shell.pid)) == 2
    finally:
        for pid in reversed(tree(shell.pid)):
            os.kill(pid, 9)
        shell.communicate()


STARTS_AND_IS_KILLED = """
import os
from servers.postgresql import postgresql

with postgresql() as server:
    print(server.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_a_test_process_that_is_killed_takes_its_servers_along() -> None:
    root = Path(found.__file__).parents[1]
    killed = subprocess.run(
        [sys.executable, "-c", STARTS_AND_IS_KILLED],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert killed.returncode == -9, killed.stderr
    deadline = time.monotonic() + 10
    while is_alive(int(killed.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
