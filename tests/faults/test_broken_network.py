"""Every request of the path's commands, broken in every way: tried again with the same key, and done once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pexpect
import pytest

from faults.clients import Ended, Launcher, Terminal
from faults.federation import rows
from faults.local_folder import check_whole
from faults.stages import Stages
from medperf.credentials import Keyring
from peers.breaking_proxy import Break, BreakingProxy, Exchange, always_from, each_once, none
from tutorials.path import EmbeddedServer

# One server for the file, on one worker.
pytestmark = pytest.mark.xdist_group("faults-broken_network")
STEPS = ("login", "create", "submit", "associate", "approve", "run", "result submit")
SHORT_SECONDS, LONG_SECONDS = 1.0, 30.0


@pytest.fixture(scope="module")
def proxy(small: EmbeddedServer) -> Iterator[BreakingProxy]:
    """Between client and server."""
    with BreakingProxy(small.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def stages(
    small: EmbeddedServer, proxy: BreakingProxy, commands: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> Stages:
    """A machine at each step of the path, whose server is behind the proxy."""
    return Stages.walked(small, Terminal(commands, tmp_path_factory.mktemp("stages") / "site", proxy.url))


Step = tuple[Terminal, tuple[str, ...], str]


@pytest.fixture
def ready(machine_at: Callable[[str], Terminal], stages: Stages, proxy: BreakingProxy) -> Callable[[str], Step]:
    """A machine before a step, what is typed, and a query for what the server must then have once."""

    def begin(step: str) -> Step:
        proxy.breaking(none)
        typed = stages.commands().get(step, ("tutorial", "approve"))
        if step in ("login", "create"):
            return machine_at(step), typed, ""
        if step == "run":
            return machine_at("run"), typed, ""
        if step == "result submit":
            machine = machine_at(step)
            number = stages.with_a_result(machine)
            return machine, typed, f"results: SELECT 1 FROM results WHERE dataset_id = {number}"
        machine = machine_at("run")
        uid = stages.with_another_dataset(machine).generated_uid
        if step == "submit":
            query = f"registry: SELECT 1 FROM datasets WHERE generated_uid = '{uid}'"
            return machine, ("dataset", "submit", "--data_uid", uid, "--yes"), query
        said = machine.done("dataset", "submit", "--data_uid", uid, "--yes")
        number = int(said.rpartition("Server UID: ")[2].split()[0])
        part = f"associations: SELECT 1 FROM associations WHERE part_kind = 'dataset' AND part_id = {number}"
        if step == "associate":
            return machine, ("dataset", "associate", "-b", "1", "--data_uid", str(number), "--yes"), part
        machine.done("dataset", "associate", "-b", "1", "--data_uid", str(number), "--yes")
        return machine, ("tutorial", "approve", "--data_uid", str(number)), f"{part} AND state = 'APPROVED'"

    return begin


def typed_by(machine: Terminal, typed: tuple[str, ...]) -> Ended:
    return machine.run(*typed, stdin="test\n")


def check_once(server: EmbeddedServer, query: str) -> None:
    if query:
        service, _, statement = query.partition(": ")
        assert rows(server, service, statement) == [(1,)], query


def check_keys(exchanges: list[Exchange]) -> int:
    """Each broken request came again, with the same key; how many were broken."""
    for before, again in zip(exchanges, [*exchanges[1:], None], strict=True):
        if before.broken is not None:
            assert again == replace(before, broken=None), before
    return sum(exchange.broken is not None for exchange in exchanges)


@pytest.mark.parametrize("step", STEPS)
def test_a_request_that_is_broken_once_is_made_again_with_its_key_and_done_once(
    ready: Callable[[str], Step], small: EmbeddedServer, proxy: BreakingProxy, step: str
) -> None:
    for how in Break:
        machine, typed, query = ready(step)
        exchanges = proxy.breaking(each_once(how))
        ended = typed_by(machine, typed)
        assert ended.exit_code == 0, f"{how}\n{ended.screen}"
        broken = check_keys(exchanges)
        print(f"{step}: {broken} of {len(exchanges)} exchanges broken: {how}")
        assert broken * 2 == len(exchanges)
        check_once(small, query)
        check_whole(machine.home)


@pytest.mark.parametrize("step", STEPS)
def test_a_request_that_stays_broken_is_a_clear_error_within_the_bound_and_the_command_works_afterwards(
    ready: Callable[[str], Step], small: EmbeddedServer, proxy: BreakingProxy, step: str
) -> None:
    machine, typed, query = ready(step)
    exchanges = proxy.breaking(none)
    assert typed_by(machine, typed).exit_code == 0
    for number in range(len(exchanges)):
        how = list(Break)[number % len(Break)]
        machine, typed, query = ready(step)
        machine.bound_seconds = SHORT_SECONDS
        proxy.breaking(always_from(number, how))
        ended = typed_by(machine, typed)
        assert ended.exit_code == 5, f"{how}\n{ended.screen}"
        assert "What to do:" in ended.screen
        machine.bound_seconds = LONG_SECONDS
        proxy.breaking(none)
        ended = typed_by(machine, typed)
        assert ended.exit_code == 0, f"after {how} at {number}\n{ended.screen}"
        check_once(small, query)
        check_whole(machine.home)


def test_the_bound_is_shown_while_a_server_that_is_down_is_tried_again(
    machine_at: Callable[[str], Terminal], tmp_path: Path
) -> None:
    machine = machine_at("submit")
    machine.bound_seconds = 3.0
    machine.server = "http://127.0.0.1:9"  # discard: nobody listens
    ended = machine.run("login", "--username", "testdataowner", "--password_stdin", stdin="test\n")
    assert ended.exit_code == 5
    assert "of 3 s)" in ended.screen
    assert "is not answering (Connection refused)" in ended.screen


def test_a_login_that_ended_in_the_middle_of_a_run_costs_no_run(
    ready: Callable[[str], Step], proxy: BreakingProxy
) -> None:
    machine, typed, _ = ready("associate")
    machine.done("login", "--username", "testdataowner", "--password_stdin", stdin="test\n")
    begun = machine.begin(*typed)
    begun.wait_for("running the model")
    end_login(machine, proxy)
    ended = begun.wait()
    assert ended.exit_code == 4, ended.screen
    assert "Run `medperf login`, then the same command again: what it did so far is kept." in ended.screen
    machine.done("login", "--username", "testdataowner", "--password_stdin", stdin="test\n")
    again = machine.done(*typed)
    assert "PENDING" in again
    assert "was run before: its result is taken from the local cache" in again


def test_at_a_terminal_the_password_is_asked_for_in_the_middle_of_a_run_which_goes_on(
    ready: Callable[[str], Step], proxy: BreakingProxy
) -> None:
    machine, typed, _ = ready("associate")
    machine.done("login", "--username", "testdataowner", "--password_stdin", stdin="test\n")
    with machine.at_a_terminal(*typed) as terminal:
        terminal.expect("running the model")
        end_login(machine, proxy)
        terminal.expect("Your login has ended.")
        terminal.expect("Password for testdataowner: ")
        terminal.sendline("test")
        terminal.expect("PENDING")
        terminal.expect(pexpect.EOF)
    assert terminal.exitstatus == 0


def end_login(machine: Terminal, proxy: BreakingProxy) -> None:
    """The person's login ends on the server, and its access token expires."""
    kept = Keyring(machine.home.credentials).load()
    assert kept is not None
    key = {"Authorization": f"Bearer {kept.access_token}", "Idempotency-Key": str(uuid.uuid4())}
    body = {"refresh_token": kept.refresh_token}
    httpx.post(f"{proxy.server}/api/v1/auth/logout", json=body, headers=key, trust_env=False).raise_for_status()
    proxy.expired.add(kept.access_token)
