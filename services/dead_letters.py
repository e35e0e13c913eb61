"""`medperf-server dead-letters`: the messages that do not get through, whether the server runs or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from medperf_contracts.dead_letters import MessageState
from medperf_contracts.values import CONTROL_BUT_NEWLINE

if TYPE_CHECKING:
    from .operator import Person

CAUSE_CHARACTERS_SHOWN = 400


@click.group("dead-letters")
def dead_letters() -> None:
    """Messages between services that have not had their effect, of a running server or a stopped one's store."""


@dead_letters.command()
@click.option("--state", type=click.Choice([state.value for state in MessageState]), help="Only those.")
@click.option("--json", "as_json", is_flag=True, help="For programs: a JSON array.")
def ls(state: str | None, as_json: bool) -> None:
    """Show each with its cause and what comes next; only the dead ones need a person."""
    wanted = {} if state is None else {"state": state}
    with _operator() as operator:
        found = {service: _ask(operator, service, **wanted) for service in _services()}
    messages = [{"service": service} | item for service, page in found.items() for item in page["items"]]
    messages.sort(key=lambda message: str(message["since"]))
    if as_json:
        click.echo(json.dumps(messages, indent=2))
        return
    if not messages:
        click.echo(f"There is no {state or 'stuck'} message.")
    for message in messages:
        click.echo("\n".join(_lines(message)))
    more = sum(page["total"] for page in found.values()) - len(messages)
    if more:
        click.echo(f"… and {more} newer ones.")


@dead_letters.command()
@click.argument("event_ids", metavar="[ID]…", nargs=-1, type=click.UUID)
@click.option("--all", "all_of_them", is_flag=True, help="Every one that `ls` shows or counts.")
def replay(event_ids: tuple[UUID, ...], all_of_them: bool) -> None:
    """Have messages tried again at once, by their IDs: after what caused them to fail was mended."""
    from .embedded.store import StoreError

    if bool(event_ids) == all_of_them:
        raise click.UsageError(
            "Name the messages by their IDs, or give --all. See them: medperf-server dead-letters ls"
        )
    wanted = [str(event_id) for event_id in event_ids]
    with _operator() as operator:
        for event_id in wanted:
            if not any(_ask(operator, service, event_id=event_id)["total"] for service in _services()):
                raise StoreError(
                    f"No message has the ID {event_id}; nothing was replayed.",
                    hint="See them all: medperf-server dead-letters ls",
                )
        body = {"event_ids": wanted or None}
        count = sum(operator.post(f"{_path(service)}/replay", body).body["count"] for service in _services())
    click.echo(f"Messages to be tried again: {count}. A running server does it now, a stopped one at its start.")
    click.echo("What became of them: medperf-server dead-letters ls")


@contextmanager
def _operator() -> Iterator[Person]:
    from .operator import operator

    with operator(makes_store=True) as person:
        yield person


def _services() -> tuple[str, ...]:
    from medperf_contracts.access import SERVICES

    return SERVICES


def _path(service: str) -> str:
    return f"dead-letters/{service}"


def _ask(operator: Person, service: str, **wanted: str) -> dict[str, Any]:
    page: dict[str, Any] = operator.get(_path(service), **wanted).body
    return page


def _lines(message: dict[str, Any]) -> list[str]:
    where = message["consumer"] or f"outbox of {message['service']}"
    attempts = "1 attempt" if message["attempts"] == 1 else f"{message['attempts']} attempts"
    next_step = f"mend the cause, then: medperf-server dead-letters replay {message['event_id']}"
    if message["next_try"]:
        next_step = f"tried again at {_time(message['next_try'])}"
    return [
        f"{message['event_id']}  {message['state']}  {where}  {message['topic']}  {message['subject'] or '?'}",
        f"    {attempts} since {_time(message['since'])}",
        f"    cause: {_printable(message['cause'])}",
        f"    next:  {next_step}",
    ]


def _time(instant: str) -> str:
    return f"{instant[:19].replace('T', ' ')} UTC"


def _printable(cause: str) -> str:
    """One line that paints no terminal."""
    line = CONTROL_BUT_NEWLINE.sub("?", " ".join(cause.split()))
    return line if len(line) <= CAUSE_CHARACTERS_SHOWN else f"{line[:CAUSE_CHARACTERS_SHOWN]}…"
