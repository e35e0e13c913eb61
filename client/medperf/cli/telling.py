"""How far preparations are: whether a benchmark's owner may be told, what was told, and taking it back."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from medperf.terminal import printable

from .changing import UID
from .listing import Column, mine_option, owner_filter, print_list, silent_yes_option, when
from .prompts import has_terminal
from .session import Session, pass_session
from .tables import json_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from medperf.case_report import CaseReport
    from medperf.preparations import InPreparation
    from medperf.telling import Answer
    from medperf_contracts.registry import NewProgress, ProgressView

    from .progress import Progress

P = ParamSpec("P")
R = TypeVar("R")

# For one telling, with what is tried again: it is not waited for but at the end.
_BOUND_SECONDS = 10.0


def send_progress_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--send_progress`, given to the command as `send_progress`: None where a person may be asked."""
    return click.option(
        "--send_progress/--no_send_progress",
        default=None,
        help="Whether the benchmark's owner is told how many cases are at which stage, and nothing else. Without"
        " this option you are asked once, in a terminal; --yes does not answer it.",
    )(command)


@contextmanager
def told(
    session: Session, progress: Progress, ongoing: InPreparation, wanted: bool | None
) -> Iterator[Callable[[CaseReport], object]]:
    """Tell the benchmark's owner how far a preparation is while the block runs, if the person agreed to that.

    It takes each report; `wanted` is what the person said in the command.
    """
    from medperf.api import Gateway
    from medperf.telling import Teller
    from medperf_contracts.registry import ProgressView

    with progress.paused():
        answer = _answer(session, ongoing, wanted)
    if answer is None or not answer.agrees:
        yield lambda _: None
        return
    if session.is_offline:
        click.echo("Offline the benchmark's owner cannot be told how far it is.", err=True)
        yield lambda _: None
        return
    home, network = session.home, session.network

    def send(body: NewProgress) -> None:
        # A connection of its own, so that nothing else waits for it; nobody is asked for a password by it.
        with Gateway(home, network=network, bound_seconds=_BOUND_SECONDS, notice=lambda _: None) as gateway:
            gateway.post("/progress", body, ProgressView)

    teller = Teller(home, ongoing, answer, send, lambda text: progress.line(printable(text)))
    wait_seconds = 2 * _BOUND_SECONDS
    try:
        yield teller.know
    except KeyboardInterrupt:
        wait_seconds = 0.0
        raise
    finally:
        teller.end(wait_seconds=wait_seconds)


def _answer(session: Session, ongoing: InPreparation, wanted: bool | None) -> Answer | None:
    """What the person says now, or said before; None where nobody could be asked, or offline nobody is."""
    from medperf.telling import keep_answer, read_answer, undisturbed

    benchmark_id, user_id = ongoing.benchmark_id, session.gateway.user_id
    if benchmark_id is None or user_id is None:
        return None
    known = read_answer(ongoing)
    if known is not None and (known.benchmark_id, known.user_id) != (benchmark_id, user_id):
        known = None
    if wanted is None:
        if known is not None or session.is_offline:
            return known
        if session.yes or not has_terminal():
            click.echo(
                f"The benchmark's owner is not told how far it is. To have it told, as numbers by stage: medperf"
                f" dataset prepare --data_uid {ongoing.uid} --send_progress",
                err=True,
            )
            return None
        wanted = _agrees(ongoing, benchmark_id)
    if known is None or known.agrees != wanted:
        with undisturbed(session.home, ongoing, lambda text: click.echo(printable(text), err=True)):
            known = keep_answer(ongoing, benchmark_id=benchmark_id, user_id=user_id, agrees=wanted)
    return known


def _agrees(ongoing: InPreparation, benchmark_id: int) -> bool:
    """Ask whether the benchmark's owner may be told, showing what that would be."""
    from medperf.errors import ContainerFailed
    from medperf.telling import in_words, numbers

    try:
        report = ongoing.read_report()
    except ContainerFailed:
        report = None
    so_far = "14 at 2, 3 at -1.1 (an example)" if report is None else f"{in_words(numbers(report))} (so it is now)"
    click.echo(
        f"The owner of benchmark {benchmark_id} can be told how far this preparation is. Sent would be how many"
        f" cases are at the stage of which number: {so_far}. No names, no texts, nothing else. Each command that"
        " goes on with this would send it: its first numbers, then at most every 10 minutes, and at its end."
        f" To take it back: medperf dataset withdraw_progress {ongoing.uid}",
        err=True,
    )
    return click.confirm("Tell them?", default=False, err=True)


@click.command("progress")
@mine_option
@click.option("--benchmark", "-b", type=UID, metavar="UID", help="Only of preparations for this benchmark.")
@json_option
@silent_yes_option
@pass_session
def list_progress(session: Session, mine: bool, benchmark: int | None, as_json_text: bool) -> None:
    """List how far preparations are: what sites tell of those for your benchmarks, and what you told of yours."""
    from medperf.telling import in_words
    from medperf_contracts.registry import ProgressView

    columns = [
        Column[ProgressView]("UID", lambda it: it.id),
        Column[ProgressView]("Benchmark", lambda it: it.benchmark_id),
        Column[ProgressView]("Told by", lambda it: it.owner_name),
        Column[ProgressView]("Cases", lambda it: sum(one.cases for one in it.stages)),
        Column[ProgressView]("At stage", lambda it: in_words(it.stages)),
        Column[ProgressView]("Told", lambda it: when(it.told_at)),
    ]
    found = session.gateway.items("/progress", ProgressView, owner=owner_filter(mine), benchmark=benchmark)
    print_list(
        found,
        columns,
        as_json_text=as_json_text,
        if_empty="Nothing is told of preparations. A site whose container reports case by case can agree to it:"
        " medperf dataset prepare --send_progress",
    )


@click.command("withdraw_progress")
@click.argument("preparation")
@silent_yes_option
@pass_session
def withdraw_progress(session: Session, preparation: str) -> None:
    """Take back what was told of a preparation: it is removed from the server, and nothing more is told.

    PREPARATION is its UID on this machine (prep-…), its name, or the UID that `medperf dataset progress` shows.
    """
    from contextlib import ExitStack

    from medperf.datasets import is_server_id
    from medperf.errors import UsageError
    from medperf.preparations import preparations
    from medperf.telling import keep_answer, read_answer, undisturbed
    from medperf_contracts.registry import ProgressView

    here = preparations(session.home, on_damaged=lambda *_: None, with_ended=True)
    answers = [(one, answer) for one in here if (answer := read_answer(one)) is not None]
    if is_server_id(preparation):
        keys = {one.preparation for one in _told(session) if one.id == int(preparation)}
    else:
        keys = {answer.preparation for one, answer in answers if preparation in (one.uid, one.name)}
    if len(keys) != 1:
        how_many = "Nothing of yours was told" if not keys else "You answered for more than one"
        raise UsageError(
            f"{how_many} of a preparation {preparation!r}.",
            hint="See what was told, and its UIDs: medperf dataset progress --mine",
        )
    [key] = keys
    with ExitStack() as quiet:
        for one, answer in answers:
            if answer.preparation == key:
                quiet.enter_context(undisturbed(session.home, one, lambda text: click.echo(text, err=True)))
                keep_answer(one, benchmark_id=answer.benchmark_id, user_id=answer.user_id, agrees=False)
                click.echo(f"Nothing more will be told of {one.uid}.")
        # Only now: until a moment ago a command that prepares may have told more.
        told_of_it = [one for one in _told(session) if one.preparation == key]
        for it in told_of_it:
            session.gateway.post(f"/progress/{it.id}/withdraw", None, ProgressView)
            click.echo(f"Taken back: the owner of benchmark {it.benchmark_id} is not shown it any more.")
    if not told_of_it:
        click.echo("Nothing of it was on the server.")


def _told(session: Session) -> list[ProgressView]:
    from medperf_contracts.registry import ProgressView

    return list(session.gateway.items("/progress", ProgressView, owner="me"))
