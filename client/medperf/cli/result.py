"""`medperf result`: look at results, and submit them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medperf.terminal import printable

from .listing import silent_yes_option
from .prompts import confirm, show_before_sending, yes_option
from .result_report import report
from .result_views import ls
from .session import Session, pass_session
from .tables import json_option, print_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medperf.api import Gateway
    from medperf.datasets import LocalDataset
    from medperf.errors import ClientError
    from medperf.home import Home
    from medperf.results import LocalResult
    from medperf_contracts.results import NewResult

    # The result's name, and why it was not sent.
    Failure = tuple[str, ClientError]


# Null for whoever may know of a result and not see all of it.
_HIDDEN = frozenset(
    {"dataset_id", "metrics", "engine", "engine_reason", "dataset_hash", "started_at", "finished_at"}
)


@click.group(no_args_is_help=True)
def result() -> None:
    """Results: look at them, submit them."""


result.add_command(ls)
result.add_command(report)


@result.command()
@click.argument("result_uid")
@json_option
@silent_yes_option
@pass_session
def view(session: Session, result_uid: str, as_json_text: bool) -> None:
    """Show a result whole: a local one, such as b1m4d1, or by its number what the server has accepted.

    On a terminal, metrics from 0 to 1 are drawn as bars, and ROC curves where their points are given.
    """
    from medperf.results import find_result

    from .drawn import draw_metrics

    if result_uid.isascii() and result_uid.isdecimal():
        from medperf_contracts.results import ResultView

        from .listing import print_thing

        accepted = print_thing(
            session, "result", int(result_uid), ResultView, as_json_text=as_json_text, hidden=_HIDDEN
        )
        metrics, is_partial = accepted.metrics, accepted.is_partial
    else:
        found = find_result(session.home, result_uid)
        print_view(found.model_dump(mode="json"), as_json_text=as_json_text)
        metrics, is_partial = found.evaluation.metrics, found.evaluation.is_partial
    if not as_json_text:
        draw_metrics(metrics, is_partial=is_partial)


_OF_RESULTS = (
    click.option(
        "--result", "-r", "names", multiple=True, help="The local result UID, such as b1m4d1; may be repeated."
    ),
    click.option("--all", "every", is_flag=True, help="Every result not yet sent."),
)


@result.command()
@_OF_RESULTS[0]
@_OF_RESULTS[1]
@click.option(
    "--from",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="What `medperf result export` wrote on another machine.",
)
@yes_option
@pass_session
def submit(session: Session, names: tuple[str, ...], every: bool, file: Path | None, yes: bool) -> None:
    """Submit results: what will be sent is printed, you are asked, it is sent. An accepted result is final."""
    from medperf.errors import UsageError

    from .carrying import submit_results

    session.check_sends()
    if file is not None:
        if names or every:
            raise UsageError("--from says which results already.", hint="Leave out --result and --all.")
        submit_results(session, file, yes=yes)
        return
    _check_choice(names, every=every)
    # Before anything local: where the server has another store, the local folder may be set aside.
    gateway = session.gateway
    failures: list[Failure] = []
    chosen = chosen_results(session.home, names, failures, every=every)
    waiting = [local for local in chosen if local.submitted_id is None]
    for local in chosen:
        if local.submitted_id is not None and not every:
            click.echo(f"{local.name} is on the server already, as result {local.submitted_id}.")
    if not waiting and not failures:
        click.echo("Nothing is left to send.")
        return
    with ExitStack() as alone:
        ready = ready_results(session.home, gateway, waiting, alone, failures)
        if ready:
            ask_to_send(session, ready, yes=yes)
        tell_failures(failures, done=send_all(session.home, gateway, ready, failures))


@result.command()
@_OF_RESULTS[0]
@_OF_RESULTS[1]
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The file to write; it must not be there yet.",
)
@yes_option
@pass_session
def export(session: Session, names: tuple[str, ...], every: bool, output: Path, yes: bool) -> None:
    """Write results to a file, to be submitted from elsewhere: it is printed, you are asked, it is written."""
    from .carrying import export_results

    _check_choice(names, every=every)
    export_results(session, names, every=every, output=output, yes=yes)


def ask_to_send(session: Session, ready: Sequence[Sending], *, yes: bool) -> None:
    """Show all that will be sent, say who will see it, and ask."""
    from .work import benchmark_view, who_sees_scores

    for one in ready:
        show_before_sending(f"{one.name}: this is all that will be sent to {session.server}:", one.body)
    for benchmark_id in sorted({one.body.benchmark_id for one in ready}):
        click.echo(who_sees_scores(benchmark_view(session.gateway, benchmark_id)))
    confirm(f"Submit {', '.join(one.name for one in ready)}? It cannot be changed afterwards.", yes=yes)


def _check_choice(names: tuple[str, ...], *, every: bool) -> None:
    from medperf.errors import UsageError

    if bool(names) == every:
        raise UsageError(
            "Say which results to submit.", hint="Give --result UID (`medperf result ls --local`), or --all."
        )


@dataclass(frozen=True)
class Sending:
    """A result that can be sent: its name, what is sent, and the approved association that it stands on."""

    name: str
    body: NewResult
    association_id: int
    # Its record on this machine, if it has one.
    local: LocalResult | None

    @property
    def seen(self) -> list[str]:
        """What the request builds on."""
        body = self.body
        kinds = {"benchmark": body.benchmark_id, "dataset": body.dataset_id, "container": body.model_id}
        return [f"association/{self.association_id}", *(f"{kind}/{uid}" for kind, uid in kinds.items())]


def chosen_results(home: Home, names: Sequence[str], failures: list[Failure], *, every: bool) -> list[LocalResult]:
    """The local results that a person named, or all of theirs; `failures` gets what cannot be read."""
    from medperf.results import find_result

    if every:
        return _all_of_ones_own(home, failures)
    return [find_result(home, name) for name in dict.fromkeys(names)]


def _all_of_ones_own(home: Home, failures: list[Failure]) -> list[LocalResult]:
    """Every local result but those on datasets that somebody else registered; what cannot be read is a failure."""
    from medperf.datasets import server_ids_of_others
    from medperf.results import local_results

    of_others = server_ids_of_others(home)
    chosen = []
    for one in local_results(home, on_damaged=lambda name, error: failures.append((name, error))):
        if one.dataset_id in of_others:
            click.echo(f"Left out: {one.name}. Somebody else registered dataset {one.dataset_id}.", err=True)
        else:
            chosen.append(one)
    return chosen


def ready_results(
    home: Home, gateway: Gateway, waiting: Sequence[LocalResult], alone: ExitStack, failures: list[Failure]
) -> list[Sending]:
    """The results that can be sent; `failures` gets why others cannot.

    Each one's prepared data is hashed again, once a dataset, and kept from other commands until `alone` is left.
    """
    from medperf.errors import Busy, ClientError, IntegrityError, NotApproved, UsageError

    from .work import approved_association

    ready = []
    looked_at: dict[int, LocalDataset | ClientError] = {}
    for one in waiting:
        if one.dataset_id not in looked_at:
            looked_at[one.dataset_id] = _as_prepared(home, one.dataset_id, alone)
        dataset = looked_at[one.dataset_id]
        try:
            if isinstance(dataset, ClientError):
                raise dataset
            if dataset.data_hash != one.evaluation.dataset_hash:
                raise IntegrityError(
                    f"{one.name} was computed on other data than dataset {one.dataset_id} is now.",
                    hint=f"Run the benchmark again: medperf benchmark run --benchmark {one.benchmark_id}"
                    f" --data_uid {one.dataset_id}",
                )
            association = approved_association(gateway, one.benchmark_id, one.dataset_id)
        except (Busy, IntegrityError, NotApproved, UsageError) as error:
            failures.append((one.name, error))
            continue
        ready.append(Sending(one.name, one.body(), association.id, one))
    return ready


def _as_prepared(home: Home, dataset_id: int, alone: ExitStack) -> LocalDataset | ClientError:
    """A dataset, kept from other commands and as it was prepared; or why no result of it can be sent."""
    from medperf.datasets import alone_with, registered_dataset
    from medperf.errors import Busy, IntegrityError, UsageError

    try:
        dataset = registered_dataset(home, dataset_id)
        alone.enter_context(alone_with(home, dataset))
        dataset.verify()
    except (Busy, IntegrityError, UsageError) as error:
        return error
    return dataset


def send_all(home: Home, gateway: Gateway, ready: Sequence[Sending], failures: list[Failure]) -> int:
    """Send one result after the other; how many were sent. `failures` gets why others were not."""
    from medperf.errors import Refused

    sent = 0
    for one in ready:
        try:
            click.echo(_send(home, gateway, one))
        except Refused as error:
            failures.append((one.name, error))
        else:
            sent += 1
    return sent


def _send(home: Home, gateway: Gateway, one: Sending) -> str:
    """Send a result and write down under which ID the server has it; what to tell the person."""
    from medperf.errors import Refused
    from medperf_contracts.results import ResultView

    from .work import existing_id

    try:
        accepted = gateway.post("/results", one.body, ResultView, seen=one.seen)
    except Refused as refused:
        there = existing_id(refused, "result")
        if there is None:
            raise
        _record(home, gateway, one, there)
        return f"{one.name} was accepted before, as result {there}: that one stands."
    _record(home, gateway, one, accepted.id)
    return f"{one.name} is accepted. Server UID: {accepted.id}"


def _record(home: Home, gateway: Gateway, one: Sending, result_id: int) -> None:
    from medperf.results import record_submission

    if one.local is not None:
        record_submission(home, one.local, result_id, user_id=gateway.user_id)


def tell_failures(failures: Sequence[Failure], *, done: int, verb: str = "sent") -> None:
    """Return if all was done; PartlyDone where some was, the first failure's own error where nothing was."""
    from medperf.errors import PartlyDone

    if not failures:
        click.echo("✅ Done!")
        return
    if len(failures) == 1 and not done:
        raise failures[0][1]
    for name, error in failures:
        click.echo(printable(f"{name} was not {verb}: {error}\nWhat to do: {error.hint}"), err=True)
    if not done:
        raise failures[0][1]
    raise PartlyDone(
        f"{len(failures)} of {done + len(failures)} results were not {verb}.",
        hint="Why stands above. The same command with --all does what is left."
        if verb != "sent"
        else "Why stands above. `medperf result submit --all` sends what is left.",
    )
