"""`medperf tutorial`: its files, its committee, and the removal of all it made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from medperf.errors import UsageError

from .listing import silent_yes_option
from .prompts import confirm, yes_option
from .session import Session, pass_session

if TYPE_CHECKING:
    from medperf.api import Gateway
    from medperf.tutorial.clean import Leavings
    from medperf_contracts.associations import AssociationView

# Seeded accounts, on servers that say that they were seeded; the password is in the tutorial for all to read.
_COMMITTEE = "testbenchmarkowner"
_PASSWORD = "test"  # noqa: S105  # of a server that holds nothing of anybody's
_BENCHMARK_UID = 1
# Of what stays; a site's own results can be many.
_NAMED_MOST = 10


@click.group()
def tutorial() -> None:
    """The tutorial's files, and its committee."""


@tutorial.command()
def data() -> None:
    """Make the folder medperf_tutorial, with images that look like chest X-rays and their labels."""
    from medperf.tutorial.files import FOLDER, make_folder

    made = make_folder(Path(FOLDER))
    here = Path.cwd()
    click.echo(f"Made {made.images.relative_to(here)} ({sum(1 for _ in made.images.iterdir())} images)")
    click.echo(f"Made {made.labels.relative_to(here)}")


@tutorial.command()
@click.option(
    "--benchmark_uid",
    type=click.IntRange(min=1),
    default=_BENCHMARK_UID,
    show_default=True,
    metavar="UID",
    help="The benchmark whose committee decides.",
)
@click.option(
    "--data_uid", type=click.IntRange(min=1), metavar="UID", help="Only this dataset; else all that asked."
)
@silent_yes_option
@pass_session
def approve(session: Session, benchmark_uid: int, data_uid: int | None) -> None:
    """Approve as the tutorial's benchmark committee would. Your own login stays as it is."""
    from medperf_contracts.associations import AssociationView

    from .association import decide, described

    gateway = _as_committee(session)
    asked = gateway.items("/associations", AssociationView, benchmark=benchmark_uid, dataset=data_uid)
    known = [request for request in asked if request.part_kind == "dataset"]
    pending = [request for request in known if request.state == "PENDING"]
    for request in pending:
        click.echo(described(decide(gateway, request, "approve", "")))
    if not pending:
        _nothing_pending(known, data_uid)


def _nothing_pending(known: list[AssociationView], data_uid: int | None) -> None:
    from .association import described

    approved = [association for association in known if association.state == "APPROVED"]
    if not approved:
        raise UsageError(
            "There is no request to approve" + (f" of dataset {data_uid}." if data_uid else "."),
            hint="Ask first: medperf dataset associate --benchmark_uid 1 --data_uid 1",
        )
    for association in approved:
        click.echo(described(association))


def _as_committee(session: Session) -> Gateway:
    """The gateway with a login of the committee's that is kept in memory only."""
    from medperf.api import Gateway
    from medperf.credentials import Keyring

    if session.gateway.server().seeded_with is None:
        raise UsageError(
            f"{session.server} was not seeded for the tutorial: its committee is people who decide themselves.",
            hint="Wait for their decision; `medperf association ls` shows it.",
        )
    gateway = Gateway(session.home, network=session.network, keyring=Keyring(None))
    click.get_current_context().call_on_close(gateway.close)
    gateway.login(_COMMITTEE, _PASSWORD)
    return gateway


@tutorial.command()
@yes_option
@pass_session
def clean(session: Session, yes: bool) -> None:
    """Remove what the tutorial made on this machine. Datasets from other folders stay.

    It finds the folder medperf_tutorial here, and wherever local datasets were prepared from one.
    """
    from medperf.tutorial.clean import find_leavings, remove
    from medperf.tutorial.files import FOLDER

    # Before the list is made: what it shows is then all that is removed.
    with session.alone():
        leavings = find_leavings(session.home, Path(FOLDER))
        for orphan in leavings.orphans:
            click.echo(
                f"Stays: dataset {orphan.generated_uid} ({orphan.name}); the folder that it was prepared from is "
                f"gone, so that it cannot be told from one of yours: {orphan.folder}"
            )
        if leavings.is_nothing:
            click.echo("There is nothing of the tutorial's here.")
            return
        click.echo("This will be removed:")
        for line in _lines(session, leavings):
            click.echo(f"  {line}")
        _say_what_stays(leavings)
        confirm("Remove all of it?", yes=yes)
        left = remove(session.home, leavings)
    for entry in left:
        click.echo(f"Stays, since the tutorial did not make it: {entry}")
    click.echo("Removed. The server's side: medperf-server reset")


def _say_what_stays(leavings: Leavings) -> None:
    told = {orphan.folder for orphan in leavings.orphans}
    stays = [it for it in leavings.strangers if it not in told]
    for stranger in stays[:_NAMED_MOST]:
        click.echo(f"Stays, since it is not known to be the tutorial's: {stranger}")
    if len(stays) > _NAMED_MOST:
        click.echo(f"and {len(stays) - _NAMED_MOST} more")


def _lines(session: Session, leavings: Leavings) -> list[str]:
    lines = [
        f"{folder.path}: {folder.files_there} files"
        if folder.files_there
        else f"{folder.path}: the tutorial's mark"
        for folder in leavings.folders
    ]
    for dataset in leavings.datasets:
        lines.append(f"{dataset.folder}: dataset {dataset.name}")
    lines += [f"{evaluation}: scores on one of these datasets" for evaluation in leavings.evaluations]
    if leavings.run_ids:
        lines.append(f"{session.home.runs}: {len(leavings.run_ids)} runs on these datasets")
    lines += [f"{cache}: fetched again when needed" for cache in leavings.caches]
    if leavings.login is not None:
        lines.append(f"{leavings.login}: the login")
    if leavings.is_all:
        lines.append(f"{session.home.root}: all of it, since nothing else is there")
    return lines
