"""`medperf result ls`: what the server has accepted, and with `--local` what was run on this machine."""

from __future__ import annotations

import click

from .changing import UID
from .listing import (
    Column,
    local_option,
    mine_option,
    owner_filter,
    print_list,
    refuse_with_local,
    silent_yes_option,
    tell_left_out,
    when,
)
from .session import Session, pass_session
from .tables import json_option


@click.command()
@mine_option
@local_option
@click.option("--benchmark", type=UID, metavar="UID", help="Only those of this benchmark.")
@click.option("--dataset", type=UID, metavar="UID", help="Only those on this dataset.")
@click.option("--model", type=UID, metavar="UID", help="Only those of this model.")
@json_option
@silent_yes_option
@pass_session
def ls(
    session: Session,
    mine: bool,
    local: bool,
    benchmark: int | None,
    dataset: int | None,
    model: int | None,
    as_json_text: bool,
) -> None:
    """List results: those that the server has accepted, or those on this machine."""
    wanted = {"benchmark": benchmark, "dataset": dataset, "model": model}
    if local:
        refuse_with_local(mine=mine)
        _ls_local(session, wanted, as_json_text=as_json_text)
        return
    from medperf_contracts.results import ResultView

    columns = [
        Column[ResultView]("UID", lambda it: it.id),
        Column[ResultView]("Benchmark UID", lambda it: it.benchmark_id),
        Column[ResultView]("Model UID", lambda it: it.model_id),
        Column[ResultView]("Dataset UID", lambda it: "not shown" if it.dataset_id is None else it.dataset_id),
        Column[ResultView]("Partial", lambda it: it.is_partial),
        Column[ResultView]("Current", lambda it: it.is_current),
        Column[ResultView]("Submitted", lambda it: when(it.submitted_at)),
    ]
    found = session.gateway.items(
        "/results", ResultView, owner=owner_filter(mine), benchmark=benchmark, dataset=dataset, model=model
    )
    print_list(
        found,
        columns,
        as_json_text=as_json_text,
        if_empty="There are no such results on the server. `medperf result submit` sends one.",
    )


def _ls_local(session: Session, wanted: dict[str, int | None], *, as_json_text: bool) -> None:
    from medperf.results import LocalResult, local_results

    columns = [
        Column[LocalResult]("Local result UID", lambda it: it.name),
        Column[LocalResult]("Benchmark UID", lambda it: it.benchmark_id),
        Column[LocalResult]("Model UID", lambda it: it.model_id),
        Column[LocalResult]("Dataset UID", lambda it: it.dataset_id),
        Column[LocalResult]("Partial", lambda it: it.evaluation.is_partial),
        Column[LocalResult]("Server UID", lambda it: it.submitted_id),
        Column[LocalResult]("Run", lambda it: when(it.evaluation.finished_at)),
    ]
    found = [
        result
        for result in local_results(session.home, on_damaged=tell_left_out)
        if all(value is None or getattr(result, f"{name}_id") == value for name, value in wanted.items())
    ]
    print_list(
        found,
        columns,
        as_json_text=as_json_text,
        if_empty="There are no such results on this machine. `medperf benchmark run` makes them.",
    )
