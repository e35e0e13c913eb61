"""`medperf run`: what containers' runs came to on this machine, their logs, and how one is ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medperf.terminal import printable

from .listing import Column, choice, print_list, silent_yes_option, when
from .prompts import confirm, yes_option
from .session import Session, pass_session
from .tables import json_option, print_view

if TYPE_CHECKING:
    from medperf.journal import Journal, Run

_PREFIX_LEAST = 4
_LISTED = 50
# A client looks once a second whether it is asked to end its run, and then has to end it.
_CANCEL_WAIT_SECONDS = 15.0
_LOOK_SECONDS = 0.2
_CHUNK_BYTES = 64 * 1024
_STATES = ("queued", "running", "done", "failed", "cancelled")


@click.group(no_args_is_help=True)
def run() -> None:
    """Runs of containers on this machine: what became of them, their logs; end one."""


@run.command()
@click.option("--data_uid", "-d", help="Only those on this dataset: its server UID or its generated UID.")
@click.option("--state", type=choice(_STATES), help="Only those in this state.")
@click.option("--last", type=click.IntRange(min=1), default=_LISTED, show_default=True, help="How many.")
@json_option
@silent_yes_option
@pass_session
def ls(session: Session, data_uid: str | None, state: str | None, last: int, as_json_text: bool) -> None:
    """List runs, the newest last."""
    from medperf.datasets import find_dataset

    uid = None if data_uid is None else find_dataset(session.home, data_uid).generated_uid
    runs = [it for it in _journal(session).runs(dataset_uid=uid) if state in (None, it.state.value)]
    shown = runs[:last][::-1]
    if as_json_text:
        print_list([_whole(it) for it in shown], [], as_json_text=True, if_empty="")
        return
    columns = [
        Column["Run"]("Run", lambda it: it.short_id),
        Column["Run"]("Container", lambda it: it.container_name),
        Column["Run"]("Task", lambda it: it.task),
        Column["Run"]("Engine", lambda it: it.engine),
        Column["Run"]("State", _state_in_short),
        Column["Run"]("Began", lambda it: when(it.created_at)),
        Column["Run"]("Took", _took),
    ]
    print_list(shown, columns, as_json_text=False, if_empty="There are no such runs.")
    if len(runs) > last:
        click.echo(f"{len(runs) - last} older ones are not shown: --last {len(runs)} shows all.", err=True)


@run.command()
@click.argument("run_uid")
@json_option
@silent_yes_option
@pass_session
def show(session: Session, run_uid: str, as_json_text: bool) -> None:
    """Show a run whole: how it ended, why, and what to do. A few first characters of its UID are enough."""
    from medperf.tasks import LOG

    found = _find(_journal(session), run_uid)
    log = session.home.runs / found.id / LOG
    print_view({**_whole(found), "log": str(log) if log.exists() else None}, as_json_text=as_json_text)


@run.command()
@click.argument("run_uid")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is printed until the run ends.")
@silent_yes_option
@pass_session
def logs(session: Session, run_uid: str, follow: bool) -> None:
    """Print what a run's container printed. It never leaves this machine."""
    from medperf.errors import UsageError
    from medperf.tasks import LOG

    journal = _journal(session)
    found = _find(journal, run_uid)
    log = session.home.runs / found.id / LOG
    if not log.exists() and not (follow and found.is_open):
        raise UsageError(
            f"Run {found.short_id} has no log: its container was not started.",
            hint=f"medperf run show {found.short_id}",
        )
    for line in _lines(log, journal, found) if follow else _lines_now(log):
        click.echo(line)


@run.command()
@click.argument("run_uid")
@yes_option
@pass_session
def cancel(session: Session, run_uid: str, yes: bool) -> None:
    """End a run that goes on, whichever command began it; or remove what one wrote that waits for the next."""
    journal = _journal(session)
    found = _find(journal, run_uid)
    what = f"{found.task} of {found.container_name}"
    if not (found.is_open or found.holds_outputs):
        click.echo(printable(f"Run {found.short_id} ({what}) has ended before: {_state_in_short(found)}."))
        return
    if found.is_open:
        confirm(printable(f"End {what}, which began {when(found.created_at)}?"), yes=yes)
    else:
        confirm(printable(f"Remove what {what} wrote {when(found.finished_at)}? It then runs again."), yes=yes)
    if found.client.is_alive():
        _ask_its_client(journal, found)
    else:
        _end_here(session, journal, found)
    click.echo(printable(f"Run {found.short_id} ({what}): {_state_in_short(journal.find(found.id))}."))


def _journal(session: Session) -> Journal:
    from medperf.journal import Journal

    return Journal(session.home.journal)


def _find(journal: Journal, prefix: str) -> Run:
    """The run whose UID begins so; UsageError where there is none, or more than one."""
    from medperf.errors import UsageError

    if len(prefix) < _PREFIX_LEAST:
        raise UsageError(
            f"{prefix!r} is too short for a run's UID.",
            hint=f"Give its first {_PREFIX_LEAST} characters or more: `medperf run ls` shows them.",
        )
    found = journal.starting_with(prefix.lower())
    if not found:
        raise UsageError(
            f"There is no run {prefix} on this machine.", hint="`medperf run ls` shows those there are."
        )
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} runs begin with {prefix}.", hint=f"Give more of it, such as {found[0].id[:13]}."
        )
    return found[0]


def _ask_its_client(journal: Journal, found: Run) -> None:
    from medperf.errors import Busy

    if not found.is_open:
        raise Busy(
            f"Another command works with what run {found.short_id} wrote.",
            hint="Wait for it, or end it with Ctrl-C, then run this again.",
        )
    journal.ask_cancel(found.id)
    deadline = time.monotonic() + _CANCEL_WAIT_SECONDS
    while journal.find(found.id).is_open:
        if time.monotonic() > deadline:
            raise Busy(
                f"The command that runs {found.short_id} was asked to end it, and has not done so for"
                f" {_CANCEL_WAIT_SECONDS:.0f} s.",
                hint="It may still prepare the run, or have been halted (Ctrl-Z). It ends the run when it looks;"
                f" `medperf run show {found.short_id}` says whether it has.",
            )
        time.sleep(_LOOK_SECONDS)


def _end_here(session: Session, journal: Journal, found: Run) -> None:
    """End a run that no command looks after any more, and remove what it wrote."""
    from medperf.causes import Cause
    from medperf.errors import Busy
    from medperf.journal import RunState
    from medperf.tasks import remove_folders

    from .engines import How, make_engines

    if not journal.take_over(found):
        raise Busy(
            f"Another command has just gone on with run {found.short_id}.",
            hint="Run this again: it asks that one.",
        )
    if found.is_open:
        engines = make_engines(
            session, How(None, None, None, None, False), lambda line: click.echo(line, err=True)
        )
        engines.named(found.engine).discard(found.id)
        journal.ended(found.id, RunState.CANCELLED, cause=Cause.CANCELLED, exit_code=None)
    journal.release(found.id)
    remove_folders(session.home.runs / found.id)


def _whole(found: Run) -> dict[str, object]:
    """A run as it is shown whole."""
    return {
        "id": found.id,
        "container": found.container_name,
        "container_hash": found.container_hash,
        "task": found.task,
        "purpose": found.purpose,
        "dataset": found.dataset_uid,
        "state": found.state.value,
        "cause": None if found.cause is None else found.cause.value,
        "exit_code": found.exit_code,
        "what_to_do": _what_to_do(found),
        "is_looked_after": found.is_open and found.client.is_alive(),
        "holds_outputs": found.holds_outputs,
        "created_at": found.created_at.isoformat(),
        "started_at": None if found.started_at is None else found.started_at.isoformat(),
        "finished_at": None if found.finished_at is None else found.finished_at.isoformat(),
        "engine": found.engine,
        "engine_reason": found.engine_reason,
        "root_is_writable": found.root_is_writable,
        "limits": found.limits,
    }


def _what_to_do(found: Run) -> str | None:
    from medperf.causes import NEXT_STEP

    if found.cause is not None:
        return NEXT_STEP[found.cause]
    if found.is_open and not found.client.is_alive():
        return "Its command has ended: the same command again goes on with it, or begins it anew."
    return None


def _state_in_short(found: Run) -> str:
    """Its state, with its cause, or that nobody looks after it."""
    if found.is_open and not found.client.is_alive():
        return f"{found.state.value}, left by its command"
    if found.cause is not None:
        code = "" if found.exit_code is None else f" {found.exit_code}"
        return f"{found.state.value}: {found.cause.value.replace('_', ' ')}{code}"
    return f"{found.state.value}, outputs kept" if found.holds_outputs else found.state.value


def _took(found: Run) -> str | None:
    """How long it ran, or has run by now."""
    if found.started_at is None:
        return None
    seconds = int(((found.finished_at or datetime.now(UTC)) - found.started_at).total_seconds())
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _lines_now(log: Path) -> Iterator[str]:
    """The lines of a log, harmless to a terminal."""
    from medperf.engines.logs import clean

    with log.open("rb") as file:
        for raw in iter(lambda: file.readline(_CHUNK_BYTES), b""):
            yield clean(raw.decode("utf-8", "replace"))


def _lines(log: Path, journal: Journal, found: Run) -> Iterator[str]:
    """The lines of a log as they come, until its run has ended or nobody writes them any more."""
    from medperf.engines.logs import clean

    begun = b""
    at = 0
    while True:
        # Looked at before the log is read: what was written before the end is then read after it.
        now = journal.find(found.id)
        goes_on = now.is_open and now.client.is_alive()
        with suppress(FileNotFoundError), log.open("rb") as file:
            # Whoever goes on with the run begins its log again from what the engine kept.
            at = 0 if file.seek(0, 2) < at else at
            file.seek(at)
            read = file.read()
            at += len(read)
            *whole, begun = (begun + read).split(b"\n")
            for raw in whole:
                yield clean(raw.decode("utf-8", "replace"))
        if not goes_on:
            break
        time.sleep(_LOOK_SECONDS)
    if begun:
        yield clean(begun.decode("utf-8", "replace"))
    if now.is_open:
        click.echo(
            "Its command was killed, and nobody reads what it prints: the same command goes on with it.", err=True
        )
