"""`medperf dataset prepare`: go on with a preparation; and what it and `dataset create` do alike."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medperf.terminal import printable

from .engines import How, how_options
from .listing import silent_yes_option
from .session import Session, pass_session
from .telling import send_progress_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medperf.containers import LocalContainer
    from medperf.datasets import LocalDataset
    from medperf.preparation import Description
    from medperf.preparations import InPreparation

    from .work import Work


@click.command()
@click.option(
    "--data_uid",
    "-d",
    required=True,
    help="The dataset in preparation: its UID (prep-…), or the name it was given.",
)
@send_progress_option
@how_options
@silent_yes_option
@pass_session
def prepare(session: Session, data_uid: str, send_progress: bool | None, how: How) -> None:
    """Go on preparing a dataset: after a failure, or after cases were mended by hand.

    Nothing is sent but, if you agreed to it, how many cases are at which stage.
    """
    from medperf.errors import UsageError
    from medperf.manifest import Role
    from medperf.preparation import Description
    from medperf.preparations import find_preparation

    from .progress import Progress
    from .work import Work

    ongoing = find_preparation(session.home, data_uid)
    work = Work.begin(session, Progress(4), how)
    container = work.container(ongoing.preparation.id, Role.PREPARATION)
    if container.hash != ongoing.preparation.hash:
        raise UsageError(
            f"{ongoing.uid} was begun with a container {container.id} that is not the one on this server now.",
            hint="Begin anew with the benchmark's container: medperf dataset create",
        )
    about = Description(ongoing.name, ongoing.description, ongoing.location)
    source = Path(ongoing.source.data_path), Path(ongoing.source.labels_path)
    made = prepared(
        work, container, *source, about, benchmark_id=ongoing.benchmark_id, send_progress=send_progress
    )
    tell_next(made)


def prepared(
    work: Work,
    container: LocalContainer,
    data_path: Path,
    labels_path: Path,
    about: Description,
    *,
    benchmark_id: int | None,
    send_progress: bool | None,
) -> LocalDataset:
    """Prepare data, showing how far its cases are; where it does not end well, say what to do with its work."""
    from medperf.errors import UsageError
    from medperf.preparation import prepare
    from medperf.preparations import reports_by_case

    from .case_progress import watched
    from .telling import told

    if send_progress and not reports_by_case(container.manifest):
        raise UsageError(
            f"Container {container.id} ({container.name}) does not report case by case: nothing could be told.",
            hint="Leave out --send_progress.",
        )
    begun: list[InPreparation] = []

    @contextmanager
    def watch(ongoing: InPreparation) -> Iterator[None]:
        begun.append(ongoing)
        click.echo(printable(f"In preparation as {ongoing.uid}, in {ongoing.work}"), err=True)
        with (
            told(work.session, work.progress, ongoing, send_progress) as know,
            watched(work.progress, ongoing, know),
        ):
            yield

    work.choose_engines(container)
    click.echo(f"Preparing with container {container.id} ({container.name})", err=True)
    try:
        return prepare(
            work.runner,
            container,
            data_path=data_path,
            labels_path=labels_path,
            about=about,
            step=work.progress.step,
            benchmark_id=benchmark_id,
            watch=watch,
        )
    except BaseException:
        for ongoing in begun:
            _tell_kept(ongoing)
        raise


def _tell_kept(ongoing: InPreparation) -> None:
    """Say that the work is kept, where cases can be mended, and what goes on with it."""
    from medperf.engines.outputs import check_outputs
    from medperf.errors import ContainerFailed

    if not ongoing.work.is_dir():
        return
    said = f"What was prepared is kept. It goes on with: medperf dataset prepare --data_uid {ongoing.uid}\n"
    try:
        check_outputs(ongoing.work)
    except ContainerFailed as odd:
        # A person who edits what a container chose to name may be editing another file.
        said += f"{odd}. Edit nothing in {ongoing.work}: such a link may lead to a file of yours."
    else:
        said += (
            f"Where cases wait for a person, they are in {ongoing.data}, their labels in {ongoing.labels}; what"
            f" their container says of each is in {ongoing.work / ongoing.report}"
        )
    click.echo(printable(said), err=True)


def tell_next(made: LocalDataset) -> bool:
    """Print the UID of what was prepared, and what comes next; whether it is not on the server yet."""
    from medperf.datasets import uid_to_type

    click.echo(f"Generated UID: {made.generated_uid}")
    if made.server_id is None:
        click.echo(f"Next, submit its metadata: medperf dataset submit --data_uid {uid_to_type(made)}")
        return True
    click.echo(
        f"This data is on the server already, as dataset {made.server_id} ({made.name}); that stands, and what"
        " you say of it now is not kept."
    )
    return False
