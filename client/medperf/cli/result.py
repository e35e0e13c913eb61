"""`medperf result`: look at results, and submit them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from medperf.terminal import printable

from .listing import silent_yes_option
from .prompts import confirm, show_before_sending, yes_option
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


@result.command()
@click.argument("result_uid")
@json_option
@silent_yes_option
@pass_session
def view(session: Session, result_uid: str, as_json_text: bool) -> None:
    """Show a result whole: a local one, such as b1m4d1, or by its number what the server has accepted."""
    from medperf.results import find_result

    if result_uid.isascii() and result_uid.isdecimal():
        from medperf_contracts.results import ResultView

        from .listing import print_thing

        print_thing(session, "result", int(result_uid), ResultView, as_json_text=as_json_text, hidden=_HIDDEN)
        return
    print_view(find_result(session.home, result_uid).model_dump(mode="json"), as_json_text=as_json_text)


@result.command()
@click.option(
    "--result", "-r", "names", multiple=True, help="The local result UID, such as b1m4d1; may be repeated."
)
@click.option("--all", "every", is_flag=True, help="Every result not yet sent.")
@yes_option
@pass_session
def submit(session: Session, names: tuple[str, ...], every: bool, yes: bool) -> None:
    """Submit results: what will be sent is printed, you are asked, it is sent. An accepted result is final."""
    from medperf.errors import Refused, UsageError
    from medperf.results import find_result

    from .work import benchmark_view, who_sees_scores

    if bool(names) == every:
        raise UsageError(
            "Say which results to submit.", hint="Give --result UID (`medperf result ls --local`), or --all."
        )
    # Before anything local: where the server has another store, the local folder may be set aside.
    gateway = session.gateway
    failures: list[Failure] = []
    if every:
        chosen = _all_of_ones_own(session.home, failures)
    else:
        chosen = [find_result(session.home, name) for name in dict.fromkeys(names)]
    waiting = [one for one in chosen if one.submitted_id is None]
    for one in chosen:
        if one.submitted_id is not None and not every:
            click.echo(f"{one.name} is on the server already, as result {one.submitted_id}.")
    if not waiting and not failures:
        click.echo("Nothing is left to send.")
        return
    with ExitStack() as alone:
        ready = _ready(session.home, gateway, waiting, alone, failures)
        if ready:
            for one, _ in ready:
                show_before_sending(f"{one.name}: this is all that will be sent to {session.server}:", one.body())
            for benchmark_id in sorted({one.benchmark_id for one, _ in ready}):
                click.echo(who_sees_scores(benchmark_view(gateway, benchmark_id)))
            confirm(f"Submit {', '.join(one.name for one, _ in ready)}? It cannot be changed afterwards.", yes=yes)
        sent = 0
        for one, seen in ready:
            try:
                click.echo(_send(session.home, gateway, one, seen))
            except Refused as error:
                failures.append((one.name, error))
            else:
                sent += 1
    _report(failures, sent=sent)


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


def _ready(
    home: Home, gateway: Gateway, waiting: Sequence[LocalResult], alone: ExitStack, failures: list[Failure]
) -> list[tuple[LocalResult, list[str]]]:
    """The results that can be sent, each with what its request builds on; `failures` gets why others cannot.

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
        kinds = {"benchmark": one.benchmark_id, "dataset": one.dataset_id, "container": one.model_id}
        ready.append((one, [f"association/{association.id}", *(f"{kind}/{uid}" for kind, uid in kinds.items())]))
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


def _send(home: Home, gateway: Gateway, one: LocalResult, seen: list[str]) -> str:
    """Send a result and write down under which ID the server has it; what to tell the person."""
    from medperf.errors import Refused
    from medperf.results import record_submission
    from medperf_contracts.results import ResultView

    from .work import existing_id

    try:
        accepted = gateway.post("/results", one.body(), ResultView, seen=seen)
    except Refused as refused:
        there = existing_id(refused, "result")
        if there is None:
            raise
        record_submission(home, one, there, user_id=gateway.user_id)
        return f"{one.name} was accepted before, as result {there}: that one stands."
    record_submission(home, one, accepted.id, user_id=gateway.user_id)
    return f"{one.name} is accepted. Server UID: {accepted.id}"


def _report(failures: Sequence[Failure], *, sent: int) -> None:
    """Return if all was sent; PartlyDone where some was, the first failure's own error where nothing was."""
    from medperf.errors import PartlyDone

    if not failures:
        click.echo("✅ Done!")
        return
    if len(failures) == 1 and not sent:
        raise failures[0][1]
    for name, error in failures:
        click.echo(printable(f"{name} was not sent: {error}\nWhat to do: {error.hint}"), err=True)
    if not sent:
        raise failures[0][1]
    raise PartlyDone(
        f"{len(failures)} of {sent + len(failures)} results were not sent.",
        hint="Why stands above. `medperf result submit --all` sends what is left.",
    )
