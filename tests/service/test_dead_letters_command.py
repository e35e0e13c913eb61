"""The operator's `dead-letters` commands: the same on a running server and on a stopped one's store."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pexpect
import pytest

from service.served import ADA, COMMAND_SECONDS, PROGRAM, Server, Start, environment, refused, run
from services.kernel import inbox

CONTAINER = {"name": "preparation", "description": "", "manifest": "name: preparation", "parameters": None}
WAIT_SECONDS = 20


def did(home: Path, *arguments: str) -> str:
    """What a command says that does what it was asked."""
    done = run(home, "dead-letters", *arguments)
    assert done.returncode == 0, done
    assert done.stderr == ""
    return done.stdout


def shown(home: Path, *options: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = json.loads(did(home, "ls", "--json", *options))
    return messages


def associations(home: Path, statement: str) -> list[Any]:
    """A look at the associations service's database, or a change in it, by the operator's own hand."""
    with closing(sqlite3.connect(home / "associations.db", timeout=10)) as database:
        rows = database.execute(statement).fetchall()
        database.commit()
        return rows


def until_states(home: Path, *states: str) -> None:
    """Wait for what the associations service holds, not for ever."""
    deadline = time.monotonic() + WAIT_SECONDS
    while associations(home, "SELECT state FROM inbox_message") != [(state,) for state in states]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def until_logged(home: Path, words: str) -> None:
    """Wait for a line of the server's log, which is written after the commit, not for ever."""
    deadline = time.monotonic() + WAIT_SECONDS
    while words not in (home / "server.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def until_sent(home: Path) -> None:
    """Wait for the registry's outbox to be empty, not for ever."""
    deadline = time.monotonic() + WAIT_SECONDS
    with closing(sqlite3.connect(home / "registry.db")) as registry:
        while registry.execute("SELECT 1 FROM outbox WHERE sent_millis IS NULL").fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def register_container(server: Server) -> None:
    server.post_as_operator("users", ADA)
    login = server.post("auth/login", {"username": ADA["username"], "password": ADA["password"]}, "nobody's")
    server.post("containers", CONTAINER, login.json()["access_token"]).raise_for_status()


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
def test_an_operator_sees_a_dead_message_and_has_it_tried_again(home: Path, up: Start, is_running: bool) -> None:
    server = up()
    associations(
        home,
        "CREATE TRIGGER full BEFORE INSERT ON model_copies BEGIN SELECT RAISE(ABORT, 'no \x1b[31m room'); END",
    )
    register_container(server)
    until_states(home, "failed")
    assert "next:  tried again at 20" in did(home, "ls")
    last = inbox.ATTEMPTS_MOST - 1
    associations(home, f"UPDATE inbox_message SET attempts = {last}, next_millis = 0")
    until_states(home, "dead")
    until_logged(home, '"event": "message_dead"')
    if not is_running:
        assert server.stop(signal.SIGTERM) == 0
    (message,) = shown(home, "--state", "dead")
    event_id = message["event_id"]
    assert (message["service"], message["consumer"]) == ("associations", "associations.record_model")
    assert (message["topic"], message["subject"]) == ("container.registered.v1", "container/1")
    said = did(home, "ls")
    assert "no ?[31m room" in said
    assert f"next:  mend the cause, then: medperf-server dead-letters replay {event_id}" in said
    associations(home, "DROP TRIGGER full")
    assert "\nMessages to be tried again: 1." in did(home, "replay", event_id, "--yes")
    if not is_running:
        until_states(home, "failed")
        up()
    until_states(home)
    assert associations(home, "SELECT id FROM model_copies") == [(1,)]


def test_all_messages_of_all_services_are_replayed_at_once_and_an_unknown_one_changes_nothing(
    home: Path, up: Start
) -> None:
    server = up()
    associations(home, "CREATE TRIGGER full BEFORE INSERT ON model_copies BEGIN SELECT RAISE(ABORT, 'full'); END")
    register_container(server)
    until_states(home, "failed")
    assert server.stop(signal.SIGTERM) == 0
    associations(home, "DROP TRIGGER full")
    associations(home, "UPDATE inbox_message SET state = 'dead'")
    with closing(sqlite3.connect(home / "registry.db")) as registry:
        registry.execute("UPDATE outbox SET sent_millis = NULL, buried_millis = 1, cause = 'it could not be read'")
        registry.commit()
    (of_outbox, of_inbox) = sorted(shown(home), key=lambda message: str(message["service"]), reverse=True)
    assert (of_outbox["service"], of_outbox["consumer"], of_outbox["state"]) == ("registry", None, "dead")
    assert "dead  outbox of registry  container.registered.v1  container/1" in did(home, "ls")
    unknown = str(uuid.uuid4())
    said = refused(home, "dead-letters", "replay", of_inbox["event_id"], unknown)
    assert f"No message has the ID {unknown}; nothing was changed." in said
    assert [message["state"] for message in shown(home)] == ["dead", "dead"]
    for arguments in ((), (unknown, "--all"), ("--all", "--service", "registry")):
        assert run(home, "dead-letters", "replay", *arguments).returncode == 2
    assert "\nMessages to be tried again: 2." in did(home, "replay", "--all", "--yes")
    up()
    until_states(home)
    until_sent(home)
    assert did(home, "ls") == "There is no stuck message.\n"


@pytest.fixture
def stuck(home: Path, up: Start) -> str:
    """A stopped store with a dead message at the associations service; its event's ID."""
    server = up()
    associations(home, "CREATE TRIGGER full BEFORE INSERT ON model_copies BEGIN SELECT RAISE(ABORT, 'full'); END")
    register_container(server)
    until_states(home, "failed")
    assert server.stop(signal.SIGTERM) == 0
    associations(home, "DROP TRIGGER full")
    associations(home, "UPDATE inbox_message SET state = 'dead'")
    return str(shown(home)[0]["event_id"])


def test_a_message_that_was_given_up_is_listed_with_its_reason_and_never_has_its_effect(
    home: Path, up: Start, stuck: str
) -> None:
    said = did(home, "drop", stuck, "--reason", "of a trial", "--yes")
    assert "associations.record_model  container.registered.v1  container/1" in said
    assert "Messages given up: 1." in said
    assert did(home, "ls") == "There is no stuck message.\n"
    assert "of a trial" in did(home, "ls", "--dropped")
    assert f"{stuck}  dropped  associations.record_model" in did(home, "show", stuck)
    up()
    until_sent(home)
    assert associations(home, "SELECT id FROM model_copies") == []


def test_an_event_is_told_whole_and_what_it_holds_only_when_asked(home: Path, stuck: str) -> None:
    said = did(home, "show", stuck)
    assert "container.registered.v1  container/1, version 1\n    from /medperf/registry, 20" in said
    assert "Recorded by registry 20" in said
    assert ", left 20" in said
    assert "Had its effect in results.record_container 20" in said
    assert "Stuck at associations.record_model: dead\n    1 attempt since 20" in said
    assert CONTAINER["name"] not in said
    assert f'"name": "{CONTAINER["name"]}"' in did(home, "show", stuck, "--data")
    assert json.loads(did(home, "show", stuck, "--json"))["associations"]["messages"][0]["state"] == "dead"
    unknown = str(uuid.uuid4())
    assert f"No service knows an event {unknown}" in refused(home, "dead-letters", "show", unknown)


@pytest.mark.parametrize("action", ["replay", "drop"])
def test_nothing_is_done_to_messages_without_a_yes(home: Path, stuck: str, action: str) -> None:
    said = refused(home, "dead-letters", action, stuck, "--reason", "a test")
    assert "What to do: Add --yes." in said
    assert "--reason TEXT" in refused(home, "dead-letters", "drop", stuck, "--yes")
    command = pexpect.spawn(
        sys.executable,
        [*PROGRAM, "dead-letters", action, stuck, "--reason", "a test"],
        env=environment(home),
        encoding="utf-8",
        timeout=COMMAND_SECONDS,
    )
    command.expect(rf"{stuck}  dead  .*Messages: 1\. .* \[y/N\]: ")
    command.sendline("n")
    command.expect(pexpect.EOF)
    command.close()
    assert [message["state"] for message in shown(home)] == ["dead"]


def test_the_reason_of_a_drop_is_asked_for_at_a_terminal(home: Path, stuck: str) -> None:
    command = pexpect.spawn(
        sys.executable,
        [*PROGRAM, "dead-letters", "drop", stuck],
        env=environment(home),
        encoding="utf-8",
        timeout=COMMAND_SECONDS,
    )
    command.expect(r"\[y/N\]: ")
    command.sendline("y")
    command.expect(r"Why \(this is kept\): ")
    command.sendline("it was a trial")
    command.expect("Messages given up: 1")
    command.expect(pexpect.EOF)
    command.close()
    assert "it was a trial" in did(home, "ls", "--dropped", "--service", "associations")


@pytest.mark.parametrize(
    ("options", "is_it"),
    [
        (("--consumer", "associations.record_model"), True),
        (("--consumer", "results.record_container"), False),
        (("--topic", "container.registered.v1"), True),
        (("--topic", "container.updated.v1"), False),
        (("--service", "associations", "--state", "dead"), True),
        (("--service", "registry"), False),
        (("--state", "waiting"), False),
        (("--all",), True),
    ],
)
def test_messages_are_chosen_by_kind(home: Path, stuck: str, options: tuple[str, ...], is_it: bool) -> None:
    if is_it:
        assert stuck in did(home, "drop", *options, "--reason", "a test", "--yes")
    else:
        assert "There is no such message" in refused(
            home, "dead-letters", "drop", *options, "--reason", "a test", "--yes"
        )
    assert len(shown(home)) == (0 if is_it else 1)


def test_an_event_that_only_waits_for_the_bus_is_not_given_up(home: Path, stuck: str) -> None:
    with closing(sqlite3.connect(home / "registry.db")) as registry:
        registry.execute("UPDATE outbox SET sent_millis = NULL, cause = 'the broker is away'")
        registry.commit()
    said = refused(home, "dead-letters", "drop", "--all", "--reason", "a test", "--yes")
    assert "only waits for the bus" in said
    assert len(shown(home)) == 2
