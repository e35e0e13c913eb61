"""`medperf dataset ls` and `view`: what the server has, and with `--local` what is on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .changing import UID
from .listing import (
    Column,
    local_option,
    mine_option,
    owner_filter,
    print_list,
    print_thing,
    refuse_with_local,
    silent_yes_option,
    tell_left_out,
    when,
)
from .session import Session, pass_session
from .tables import json_option, print_view

if TYPE_CHECKING:
    from medperf.datasets import LocalDataset
    from medperf.preparations import InPreparation

# As long as a UID's beginning is for the eye; `--json` and `view` give it whole.
_UID_DIGITS_SHOWN = 12


@click.command()
@mine_option
@local_option
@click.option("--benchmark", type=UID, metavar="UID", help="Only those that asked to join it.")
@json_option
@silent_yes_option
@pass_session
def ls(session: Session, mine: bool, local: bool, benchmark: int | None, as_json_text: bool) -> None:
    """List datasets: those that you may see on the server, or those prepared on this machine."""
    if local:
        refuse_with_local(mine=mine, benchmark=benchmark)
        _ls_local(session, as_json_text=as_json_text)
        return
    from medperf_contracts.registry import DatasetView

    columns = [
        Column[DatasetView]("UID", lambda it: it.id),
        Column[DatasetView]("Name", lambda it: it.name),
        Column[DatasetView]("Owner", lambda it: it.owner_name),
        Column[DatasetView]("State", lambda it: it.state),
        Column[DatasetView]("Location", lambda it: it.location),
        Column[DatasetView]("Generated UID", lambda it: f"{it.generated_uid[:_UID_DIGITS_SHOWN]}…"),
        Column[DatasetView]("Valid", lambda it: it.is_valid),
    ]
    found = session.gateway.items("/datasets", DatasetView, owner=owner_filter(mine), benchmark=benchmark)
    print_list(
        found,
        columns,
        as_json_text=as_json_text,
        if_empty="There are no such datasets on the server. `medperf dataset submit` registers one.",
    )
    from medperf.preparations import preparations

    if ongoing := preparations(session.home, on_damaged=lambda *_: None):
        names = ", ".join(it.uid for it in ongoing)
        click.echo(f"In preparation on this machine: {names} (medperf dataset ls --local)", err=True)


def _ls_local(session: Session, *, as_json_text: bool) -> None:
    from medperf.datasets import LocalDataset, local_datasets
    from medperf.preparations import InPreparation, preparations

    columns = [
        Column[LocalDataset | InPreparation](
            "Generated UID", lambda it: it.uid if isinstance(it, InPreparation) else it.generated_uid
        ),
        Column[LocalDataset | InPreparation]("Name", lambda it: it.name),
        Column[LocalDataset | InPreparation](
            "Server UID", lambda it: None if isinstance(it, InPreparation) else it.server_id
        ),
        Column[LocalDataset | InPreparation](
            "Prepared by", lambda it: f"container {it.preparation.id} · {it.preparation.name}"
        ),
        Column[LocalDataset | InPreparation]("Prepared", _prepared),
    ]
    found: list[LocalDataset | InPreparation] = [*local_datasets(session.home, on_damaged=tell_left_out)]
    found += preparations(session.home, on_damaged=tell_left_out)
    print_list(
        found,
        columns,
        as_json_text=as_json_text,
        if_empty="There are no datasets on this machine. `medperf dataset create` prepares one.",
    )


def _prepared(it: LocalDataset | InPreparation) -> str | None:
    from medperf.datasets import LocalDataset

    return when(it.created_at) if isinstance(it, LocalDataset) else f"in preparation: {it.so_far()}"


@click.command()
@click.argument("dataset_uid")
@local_option
@json_option
@silent_yes_option
@pass_session
def view(session: Session, dataset_uid: str, local: bool, as_json_text: bool) -> None:
    """Show a dataset whole.

    A server UID, which is up to nine digits that do not begin with 0, shows what the server has; a generated UID,
    or its beginning, what is on this machine. With --local either shows what is on this machine. A UID that begins
    with prep- is that of a dataset in preparation.
    """
    from medperf.datasets import PREPARATION_PREFIX, find_dataset, is_server_id

    if dataset_uid.startswith(PREPARATION_PREFIX):
        from medperf.preparations import find_preparation
        from medperf.telling import current_answer

        found = find_preparation(session.home, dataset_uid)
        answer = current_answer(found)
        whole = {**found.model_dump(mode="json"), "folder": str(found.work), "state": "in preparation"}
        is_told = answer is not None and answer.agrees
        print_view(
            {**whole, "cases": found.so_far(), "benchmark_owner_is_told": is_told}, as_json_text=as_json_text
        )
        return
    if not local and is_server_id(dataset_uid):
        from medperf_contracts.registry import DatasetView

        print_thing(session, "dataset", int(dataset_uid), DatasetView, as_json_text=as_json_text)
        return
    print_view(find_dataset(session.home, dataset_uid), as_json_text=as_json_text)
