"""Submitting by way of a file: what a site without internet writes, and what a machine with it sends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medperf.errors import IntegrityError, NotApproved, Refused, UsageError
from medperf.terminal import printable

from .changing import check_owner, tell_registered
from .prompts import confirm, show_before_sending

if TYPE_CHECKING:
    from medperf.carried import Carried, TakingPart
    from medperf.results import LocalResult
    from medperf_contracts.registry import NewDataset
    from medperf_contracts.results import NewResult

    from .result import Failure
    from .session import Session


def check_is_free(output: Path) -> None:
    """Raise UsageError where a file cannot be written anew."""
    if not output.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {output.parent}.", hint="Make it, or give another --output.")
    if output.exists():
        raise UsageError(f"{output} is there already.", hint="Remove it, or give another --output.")


def export_results(session: Session, names: Sequence[str], *, every: bool, output: Path, yes: bool) -> None:
    """Show what would be sent of results, ask, and write it to a file instead of sending it."""
    from .result import chosen_results, ready_results, tell_failures
    from .work import benchmark_view, who_sees_scores

    check_is_free(output)
    gateway = session.gateway
    failures: list[Failure] = []
    chosen = chosen_results(session.home, names, failures, every=every)
    with ExitStack() as alone:
        waiting = [one for one in chosen if one.submitted_id is None or not every]
        ready = ready_results(session.home, gateway, waiting, alone, failures)
        if not ready and not failures:
            click.echo("Nothing is left to send.")
            return
        if ready:
            for one in ready:
                show_before_sending(f"{one.name}: this is all that will be written:", one.body)
            for benchmark_id in sorted({one.body.benchmark_id for one in ready}):
                click.echo(who_sees_scores(benchmark_view(gateway, benchmark_id)))
            listed = ", ".join(one.name for one in ready)
            confirm(f"Write {listed} to {output}, to be submitted from elsewhere?", yes=yes)
            _carried(session, results=tuple(one.body for one in ready)).write(output)
            click.echo(printable(f"Written to {output}"))
            click.echo("Next, where the server can be reached: medperf result submit --from FILE")
    tell_failures(failures, done=len(ready), verb="written")


def submit_results(session: Session, file: Path, *, yes: bool) -> None:
    """Send the results of a file that was carried here, after the checks and questions of local ones."""
    from .result import Sending, ask_to_send, send_all, tell_failures
    from .work import approved_association

    carried = _read(session, file)
    if not carried.results:
        raise UsageError(
            f"{file} holds no results.", hint="A dataset's file goes to: medperf dataset submit --from FILE"
        )
    gateway = session.gateway
    failures: list[Failure] = []
    ready: list[Sending] = []
    for body in carried.results:
        name = _name(body)
        try:
            _check_dataset(session, body)
            association = approved_association(gateway, body.benchmark_id, body.dataset_id)
        except (IntegrityError, NotApproved, Refused) as error:
            failures.append((name, error))
        else:
            ready.append(Sending(name, body, association.id, _local(session, body)))
    if ready:
        ask_to_send(session, ready, yes=yes)
    tell_failures(failures, done=send_all(session.home, gateway, ready, failures))


def write_dataset(session: Session, body: NewDataset, taking_part: TakingPart, output: Path) -> None:
    """Write a dataset's metadata and its request to take part, to be submitted from elsewhere."""
    _carried(session, dataset=body, taking_part=taking_part).write(output)
    click.echo(printable(f"Written to {output}"))
    click.echo("Next, where the server can be reached: medperf dataset submit --from FILE")


def submit_dataset(session: Session, file: Path, *, yes: bool) -> None:
    """Register the dataset of a file that was carried here, then ask to take part, each after its question."""
    from medperf_contracts.associations import LIVE, AssociationState, NewAssociation
    from medperf_contracts.registry import DatasetView

    from .work import ask_to_take_part, benchmark_view, check_open, latest_association, who_sees_scores

    carried = _read(session, file)
    body, wanted = carried.dataset, carried.taking_part
    if body is None or wanted is None:
        raise UsageError(
            f"{file} holds no dataset.", hint="A file of results goes to: medperf result submit --from FILE"
        )
    gateway = session.gateway
    benchmark = benchmark_view(gateway, wanted.benchmark_id)
    check_open(benchmark)
    show_before_sending(f"This is all that will be sent to {session.server}:", body)
    confirm("Register this dataset?", yes=yes)
    registered = gateway.post("/datasets", body, DatasetView, seen=[f"container/{body.preparation_id}"])
    tell_registered(body, registered)
    association = latest_association(gateway, benchmark.id, registered.id)
    if association is None or association.state not in LIVE:
        request = NewAssociation(benchmark_id=benchmark.id, dataset_id=registered.id, summary=wanted.summary)
        show_before_sending(f"This request will be sent to {session.server}:", request)
        click.echo(who_sees_scores(benchmark))
        confirm(printable(f"Ask to take part in benchmark {benchmark.id} ({benchmark.name})?"), yes=yes)
        seen = [f"benchmark/{benchmark.id}", f"dataset/{registered.id}"]
        association = ask_to_take_part(gateway, request, seen)
    click.echo(f"Association {association.id} is {association.state.value}.")
    pair = f"--benchmark {benchmark.id} --data_uid {registered.id}"
    once = "" if association.state is AssociationState.APPROVED else ", once it is APPROVED"
    click.echo(f"Next{once}: medperf bundle export {pair} --output FILE.tar")


def _carried(
    session: Session,
    *,
    dataset: NewDataset | None = None,
    taking_part: TakingPart | None = None,
    results: tuple[NewResult, ...] = (),
) -> Carried:
    from medperf.carried import Carried

    return Carried(
        server=session.server,
        store_id=session.gateway.server().store_id,
        written_at=datetime.now(UTC),
        dataset=dataset,
        taking_part=taking_part,
        results=results,
    )


def _read(session: Session, file: Path) -> Carried:
    """A file's content, which must be of the store that answers."""
    from medperf.carried import Carried

    carried = Carried.read(file)
    if carried.store_id != session.gateway.server().store_id:
        raise UsageError(
            printable(f"{file} was written for another server's store: that of {carried.server}."),
            hint=f"{session.server} is asked now: give --server (MEDPERF_SERVER) that one. If it was reset since,"
            " its UIDs mean nothing any more.",
        )
    return carried


def _check_dataset(session: Session, body: NewResult) -> None:
    """Raise unless the dataset that a result is of is this person's, and has the data that was run on."""
    from medperf_contracts.registry import DatasetView

    seen = [f"dataset/{body.dataset_id}"]
    dataset = session.gateway.get(f"/datasets/{body.dataset_id}", DatasetView, seen=seen)
    check_owner(session, "dataset", dataset)
    if dataset.data_hash != body.dataset_hash:
        raise IntegrityError(
            f"{_name(body)} was computed on other data than dataset {body.dataset_id} is.",
            hint="Run the benchmark again at the site, on the dataset that is registered.",
        )


def _name(body: NewResult) -> str:
    from medperf.results import result_name

    return result_name(body.benchmark_id, body.model_id, body.dataset_id)


def _local(session: Session, body: NewResult) -> LocalResult | None:
    """The record on this machine of the same result, if it was computed here as well."""
    from medperf.results import find_result

    try:
        local = find_result(session.home, _name(body))
    except (IntegrityError, UsageError):
        return None
    return local if local.body() == body else None
