"""`medperf-server dead-letters`: the messages that do not get through, whether the server runs or not."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from medperf_contracts.access import SERVICES
from medperf_contracts.dead_letters import NAMED_MOST, MessageState

from .dead_letters_shown import action_lines, message_lines, story_lines

if TYPE_CHECKING:
    from .caller import Person

# What a person reads before they agree; the rest is counted.
SHOWN_BEFORE_ASKING = 20

Message = dict[str, Any]


@click.group("dead-letters")
def dead_letters() -> None:
    """Messages between services that have not had their effect, of a running server or a stopped one's store."""


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--state", type=click.Choice([state.value for state in MessageState]), help="Only those."),
        click.option("--topic", metavar="TOPIC", help="Only events such as association.approved.v1."),
        click.option("--consumer", metavar="NAME", help="Only those of a consumer, as `ls` names it."),
        click.option("--service", type=click.Choice(SERVICES), help="Only those in this service."),
    ):
        command = option(command)
    return command


def _which(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        click.option("--all", "all_of_them", is_flag=True, help="Every one that `ls` counts."),
        _filters,
        click.argument("event_ids", metavar="[EVENT]…", nargs=-1, type=click.UUID),
    ):
        command = option(command)
    return command


@dead_letters.command()
@_filters
@click.option("--dropped", is_flag=True, help="Those that were given up instead, with who did it and why.")
@click.option("--json", "as_json", is_flag=True, help="For programs: a JSON array.")
def ls(dropped: bool, as_json: bool, service: str | None, **wanted: str | None) -> None:
    """Show each with its cause and what comes next; only the dead ones need a person."""
    if dropped and any(wanted.values()):
        raise click.UsageError("--dropped shows all that were given up: give it alone, or with --service.")
    with _operator() as operator:
        found = _pages(operator, service, "/dropped", {}) if dropped else _messages(operator, service, wanted)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo("No message was given up." if dropped else f"There is no {wanted['state'] or 'stuck'} message.")
    for each in found:
        click.echo("\n".join(action_lines(each) if dropped else message_lines(each)))


@dead_letters.command()
@click.argument("event_id", metavar="EVENT", type=click.UUID)
@click.option("--data", is_flag=True, help="Also what the event holds.")
@click.option("--json", "as_json", is_flag=True, help="For programs: a JSON object, by service.")
def show(event_id: UUID, data: bool, as_json: bool) -> None:
    """Tell all that is known of one event: whence, where it had its effect, where not and why, what was done."""
    asked = {"event_id": str(event_id)} | ({"data": "true"} if data else {})
    with _operator() as operator:
        stories = {name: operator.get(f"{_path(name)}/story", **asked).body for name in SERVICES}
    known = {name: story for name, story in stories.items() if any(story.values())}
    if not known:
        raise _refusal(
            f"No service knows an event {event_id}.", "See what is stuck: medperf-server dead-letters ls"
        )
    click.echo(json.dumps(known, indent=2) if as_json else "\n".join(story_lines(str(event_id), known)))


@dead_letters.command()
@_which
@click.option("--reason", default="", metavar="TEXT", help="Why; it is kept.")
def replay(reason: str, **which: Any) -> None:
    """Have messages tried again at once: after what caused them to fail was mended."""
    with _operator() as operator:
        found, narrowed = _chosen(operator, **which)
        _agree(found, "Have them tried again?", yes=which["yes"])
        count = _act(operator, "replay", found, narrowed | {"reason": reason})
    click.echo(f"Messages to be tried again: {count}. A running server does it now, a stopped one at its start.")
    click.echo("What became of them: medperf-server dead-letters ls")


@dead_letters.command()
@_which
@click.option("--reason", metavar="TEXT", help="Why; it is kept, and shown with --dropped.")
def drop(reason: str | None, **which: Any) -> None:
    """Give messages up for good: they never have their effect, also not when they come again."""
    with _operator() as operator:
        found, narrowed = _chosen(operator, **which)
        leaving = [message for message in found if message["consumer"] is None and message["state"] != "dead"]
        if leaving:
            raise _refusal(
                f"Event {leaving[0]['event_id']} only waits for the bus, and every consumer needs it; "
                "nothing was dropped.",
                "It leaves as soon as the bus takes it: look at its cause. Narrow what you drop: --consumer NAME",
            )
        _agree(found, "Give them up for good?", yes=which["yes"], reason_is_given=reason is not None)
        why = click.prompt("Why (this is kept)") if reason is None else reason
        count = _act(operator, "drop", found, narrowed | {"reason": why})
    click.echo(f"Messages given up: {count}. They stay listed: medperf-server dead-letters ls --dropped")
    if count < len(found):
        click.echo(f"{len(found) - count} had their effect meanwhile, and were not.")


@contextmanager
def _operator() -> Iterator[Person]:
    from .operator import operator

    with operator(makes_store=True) as person:
        yield person


def _path(service: str) -> str:
    return f"dead-letters/{service}"


def _pages(operator: Person, service: str | None, path: str, wanted: Mapping[str, str]) -> list[Message]:
    """All pages of the service, or of all services."""
    found = []
    for name in (service,) if service else SERVICES:
        cursor: dict[str, str] = {}
        while True:
            page = operator.get(f"{_path(name)}{path}", **wanted, **cursor).body
            found += [{"service": name} | item for item in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
    return found


def _messages(operator: Person, service: str | None, wanted: Mapping[str, str | None]) -> list[Message]:
    given = {name: value for name, value in wanted.items() if value is not None}
    return sorted(_pages(operator, service, "", given), key=lambda message: str(message["since"]))


def _chosen(
    operator: Person, *, event_ids: Sequence[UUID], all_of_them: bool, yes: bool, **wanted: str | None
) -> tuple[list[Message], dict[str, str]]:
    """The messages that a command is about, and what narrowed them beside their IDs."""
    service = wanted.pop("service")
    narrowed = {name: value for name, value in wanted.items() if value is not None}
    is_narrowed = bool(narrowed) or service is not None
    if all_of_them == bool(event_ids or is_narrowed):
        raise click.UsageError(
            "Name messages by their events' IDs, or say which by --service, --consumer, --topic, --state, "
            "or give --all alone. See them: medperf-server dead-letters ls"
        )
    found = _messages(operator, service, narrowed)
    if event_ids:
        named = {str(event_id) for event_id in event_ids}
        found = [message for message in found if message["event_id"] in named]
        for unknown in sorted(named - {message["event_id"] for message in found}):
            raise _refusal(
                f"No message has the ID {unknown}; nothing was changed.",
                "See them all: medperf-server dead-letters ls",
            )
    if not found:
        raise _refusal(
            "There is no such message; nothing was changed.", "See them: medperf-server dead-letters ls"
        )
    return found, narrowed


def _agree(found: Sequence[Message], question: str, *, yes: bool, reason_is_given: bool = True) -> None:
    """Show what it is about, and ask."""
    for message in found[:SHOWN_BEFORE_ASKING]:
        click.echo("\n".join(message_lines(message)))
    if len(found) > SHOWN_BEFORE_ASKING:
        click.echo(f"… and {len(found) - SHOWN_BEFORE_ASKING} newer ones.")
    if not (yes and reason_is_given) and not sys.stdin.isatty():
        missing = " and ".join(
            option for option, given in (("--yes", yes), ("--reason TEXT", reason_is_given)) if not given
        )
        raise _refusal("This must be confirmed, and there is no terminal to ask on.", f"Add {missing}.")
    if not yes:
        click.confirm(f"Messages: {len(found)}. {question}", abort=True)


def _act(operator: Person, action: str, found: Sequence[Message], body: Mapping[str, Any]) -> int:
    """Do it to exactly those that were shown, a bounded number a request; returns to how many it was done."""
    count = 0
    for service in sorted({message["service"] for message in found}):
        event_ids = sorted({message["event_id"] for message in found if message["service"] == service})
        for first in range(0, len(event_ids), NAMED_MOST):
            named = {"event_ids": event_ids[first : first + NAMED_MOST], "by": _operators_name()}
            count += operator.post(f"{_path(service)}/{action}", {**body, **named}).body["count"]
    return count


def _operators_name() -> str:
    """Who is at this machine, as the machine knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "operator"


def _refusal(message: str, hint: str) -> Exception:
    from .operator_error import OperatorError

    return OperatorError(message, hint=hint)
