"""`medperf benchmark ls` and `view`."""

from __future__ import annotations

import click

from .changing import UID
from .container import STATES
from .listing import Column, choice, mine_option, owner_filter, print_list, print_thing, silent_yes_option
from .session import Session, pass_session
from .tables import json_option

APPROVALS = ("PENDING", "APPROVED", "REJECTED")


@click.command()
@mine_option
@click.option("--name", metavar="NAME", help="Only those of this name.")
@click.option("--state", type=choice(STATES), help="Only those in this state.")
@click.option("--approval", type=choice(APPROVALS), help="Only those of which an administrator decided so.")
@click.option("--pending", is_flag=True, help="Only those that wait for an administrator's decision.")
@json_option
@silent_yes_option
@pass_session
def ls(
    session: Session,
    mine: bool,
    name: str | None,
    state: str | None,
    approval: str | None,
    pending: bool,
    as_json_text: bool,
) -> None:
    """List benchmarks."""
    from medperf.errors import UsageError
    from medperf_contracts.registry import BenchmarkView

    if pending:
        if state or approval:
            raise UsageError(
                "--pending stands for --state OPERATION --approval PENDING.", hint="Give the one or the others."
            )
        state, approval = "OPERATION", "PENDING"

    columns = [
        Column[BenchmarkView]("UID", lambda it: it.id),
        Column[BenchmarkView]("Name", lambda it: it.name),
        Column[BenchmarkView]("Owner", lambda it: it.owner_name),
        Column[BenchmarkView]("State", lambda it: it.state),
        Column[BenchmarkView]("Approval", lambda it: it.approval),
        Column[BenchmarkView]("Valid", lambda it: it.is_valid),
        Column[BenchmarkView]("Description", lambda it: _first_line(it.description)),
    ]
    found = session.gateway.items(
        "/benchmarks", BenchmarkView, owner=owner_filter(mine), name=name, state=state, approval=approval
    )
    print_list(found, columns, as_json_text=as_json_text, if_empty="There are no such benchmarks.")


@click.command()
@click.argument("benchmark_uid", type=UID)
@json_option
@silent_yes_option
@pass_session
def view(session: Session, benchmark_uid: int, as_json_text: bool) -> None:
    """Show a benchmark whole."""
    from medperf_contracts.registry import BenchmarkView

    print_thing(session, "benchmark", benchmark_uid, BenchmarkView, as_json_text=as_json_text)


def _first_line(text: str, limit: int = 50) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= limit else line[: limit - 1] + "…"
