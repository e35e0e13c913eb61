"""`medperf container`: preparations, models and metrics as they are registered."""

from __future__ import annotations

import click

from .listing import Column, choice, mine_option, owner_filter, print_list, print_thing, silent_yes_option
from .session import Session, pass_session
from .tables import json_option

STATES = ("DEVELOPMENT", "OPERATION")


@click.group()
def container() -> None:
    """Containers: preparations, models, metrics."""


@container.command()
@mine_option
@click.option("--name", metavar="NAME", help="Only those of this name.")
@click.option("--state", type=choice(STATES), help="Only those in this state.")
@json_option
@silent_yes_option
@pass_session
def ls(session: Session, mine: bool, name: str | None, state: str | None, as_json_text: bool) -> None:
    """List containers. A model is a container in that role: its UID is the container's."""
    from medperf_contracts.registry import ContainerView

    columns = [
        Column[ContainerView]("UID", lambda it: it.id),
        Column[ContainerView]("Name", lambda it: it.name),
        Column[ContainerView]("Owner", lambda it: it.owner_name),
        Column[ContainerView]("State", lambda it: it.state),
        Column[ContainerView]("Valid", lambda it: it.is_valid),
    ]
    found = session.gateway.items("/containers", ContainerView, owner=owner_filter(mine), name=name, state=state)
    print_list(found, columns, as_json_text=as_json_text, if_empty="There are no such containers.")


@container.command()
@click.argument("container_uid", type=click.IntRange(min=1))
@json_option
@silent_yes_option
@pass_session
def view(session: Session, container_uid: int, as_json_text: bool) -> None:
    """Show a container whole, with its manifest and parameters."""
    from medperf_contracts.registry import ContainerView

    print_thing(session, "container", container_uid, ContainerView, as_json_text=as_json_text)
