"""How far preparations are: whether a benchmark's owner may be told, what was told, and taking it back."""

from __future__ import annotations

import os
import sys
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
    from uuid import UUID

    from medperf.case_report import CaseReport
    from medperf.preparations import InPreparation
    from medperf.telling import Answer
    from medperf_contracts.registry import NewProgress

    from .progress import Progress

P = ParamSpec("P")
R = TypeVar("R")

# For one telling, with what is tried again.
_BOUND_SECONDS = 10.0
# So long the next step waits for the last one; it goes on beside that step.
_WAIT_SECONDS = 3.0


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
    from medperf_contracts.registry import ProgressReceipt

    with progress.paused():
        answer = _answer(session, ongoing, wanted)
    if answer is None:
        yield lambda _: None
        return
    if session.is_offline:
        click.echo("Offline the benchmark's owner cannot be told how far it is.", err=True)
        yield lambda _: None
        return
    home, network, agreed = session.home, session.network, answer.user_id

    def send(body: NewProgress) -> None:
        # A connection of its own, so that nothing else waits for it. It asks nobody for a password, and speaks for
        # nobody but who agreed, whoever has logged in on this machine meanwhile.
        with Gateway(
            home, network=network, only_as=agreed, bound_seconds=_BOUND_SECONDS, notice=lambda _: None
        ) as gateway:
            gateway.post("/progress", body, ProgressReceipt)

    teller = Teller(home, ongoing, answer, send, lambda text: progress.line(printable(text)))
    try:
        yield teller.know
    except KeyboardInterrupt:
        teller.abandon()
        raise
    except BaseException:
        teller.end(wait_seconds=_WAIT_SECONDS)
        raise
    teller.end(wait_seconds=_WAIT_SECONDS)


def _answer(session: Session, ongoing: InPreparation, wanted: bool | None) -> Answer | None:
    """The agreement of who is logged in: given now, or before; None where there is none."""
    from medperf.errors import Busy
    from medperf.telling import current_answer, keep_answer

    benchmark_id, user_id = ongoing.benchmark_id, session.gateway.user_id
    if benchmark_id is None or user_id is None:
        return None
    known = current_answer(ongoing)
    if known is not None and known.user_id != user_id:
        known = None
    if wanted is None and known is None and not session.is_offline:
        if session.yes or not _can_be_asked():
            click.echo(
                f"The benchmark's owner is not told how far it is. To have it told, as numbers by stage: medperf"
                f" dataset prepare --data_uid {ongoing.uid} --send_progress",
                err=True,
            )
            return None
        wanted = _agrees(ongoing, benchmark_id)
    if wanted is not None and (known is None or known.agrees != wanted):
        try:
            known = keep_answer(session.home, ongoing, benchmark_id=benchmark_id, user_id=user_id, agrees=wanted)
        except (Busy, OSError) as error:
            click.echo(
                printable(f"Nobody is told how far it is: the answer could not be kept ({error})."), err=True
            )
            return None
        if not wanted:
            click.echo(
                "Nothing is told from now on. To take back what was told before: medperf dataset"
                f" withdraw_progress {ongoing.uid}",
                err=True,
            )
    return known if known is not None and known.agrees else None


def _can_be_asked() -> bool:
    """Whether somebody is there: a command in the background would be stopped by its question."""
    try:
        return has_terminal() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False


def _agrees(ongoing: InPreparation, benchmark_id: int) -> bool:
    """Ask whether the benchmark's owner may be told, showing what that would be; no answer is a no."""
    from medperf.errors import ContainerFailed
    from medperf.telling import in_words, numbers

    try:
        report = ongoing.read_report()
    except ContainerFailed:
        report = None
    so_far = "14 at 2, 3 at -1.1 (an example)" if report is None else f"{in_words(numbers(report))} (so it is now)"
    click.echo(
        f"The owner of benchmark {benchmark_id} can be told how far this preparation is. Sent would be how many"
        f" cases are at the stage of which number: {so_far}. No names, no texts, nothing else; with it a random"
        " number, by which this preparation is told from others. Each command that goes on with this would send"
        " it: its first numbers, then at most every 10 minutes, and at its end. To take it back:"
        f" medperf dataset withdraw_progress {ongoing.uid}",
        err=True,
    )
    try:
        return click.confirm("Tell them?", default=False, err=True)
    except click.Abort as abort:
        if isinstance(abort.__context__, EOFError):
            return False
        raise


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
    """Take back what was told of a preparation: its numbers are removed from the server, nothing more is told.

    PREPARATION is its UID on this machine (prep-…), its name, or the UID that `medperf dataset progress` shows.
    """
    from medperf.telling import keep_answer, read_answers
    from medperf_contracts.registry import ProgressReceipt, ProgressWithdrawal

    numbers = _numbers(session, preparation)
    for ongoing in _preparations(session):
        answers = read_answers(ongoing)
        if answers and answers[-1].agrees and any(one.number in numbers for one in answers):
            last = answers[-1]
            keep_answer(session.home, ongoing, benchmark_id=last.benchmark_id, user_id=last.user_id, agrees=False)
            click.echo(f"Nothing more will be told of {ongoing.uid}.")
    mine = session.gateway.user_id
    for number, (benchmark_id, user_id) in numbers.items():
        if mine is not None and user_id != mine:
            click.echo(
                f"What another person told the owner of benchmark {benchmark_id} of it is theirs to take back,"
                " logged in as they were."
            )
            continue
        body = ProgressWithdrawal(benchmark_id=benchmark_id, preparation=number)
        session.gateway.post("/progress/withdraw", body, ProgressReceipt)
    for benchmark_id in sorted({benchmark_id for benchmark_id, user_id in numbers.values() if user_id == mine}):
        click.echo(f"Taken back: the owner of benchmark {benchmark_id} is not shown it any more.")


def _preparations(session: Session) -> list[InPreparation]:
    from medperf.preparations import preparations

    return preparations(session.home, on_damaged=lambda *_: None, with_ended=True)


def _numbers(session: Session, given: str) -> dict[UUID, tuple[int, int]]:
    """By which numbers what is meant was told, or may have been -> to the owner of which benchmark, by whom.

    UsageError unless it is one preparation.
    """
    from medperf.datasets import PREPARATION_PREFIX, is_server_id
    from medperf.errors import UsageError
    from medperf.telling import read_answers
    from medperf_contracts.registry import ProgressView

    found = []
    for ongoing in _preparations(session):
        is_meant = ongoing.name == given or (
            given.startswith(PREPARATION_PREFIX) and ongoing.uid.startswith(given)
        )
        told = {one.number: (one.benchmark_id, one.user_id) for one in read_answers(ongoing) if one.agrees}
        if is_meant and told:
            found.append(told)
    if is_server_id(given):
        listed = session.gateway.items("/progress", ProgressView, owner="me")
        found += [{one.preparation: (one.benchmark_id, one.owner_id)} for one in listed if one.id == int(given)]
    if len(found) != 1:
        how_many = "Nothing was told from here" if not found else "More than one was told of"
        raise UsageError(
            f"{how_many}: {given!r}.", hint="See what was told, and its UIDs: medperf dataset progress --mine"
        )
    return found[0]
