"""`medperf dataset`: prepare data, register its metadata, ask to take part in a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from medperf.terminal import printable

from .changing import UID, validity_option
from .dataset_views import ls, view
from .engines import How, how_options
from .listing import silent_yes_option
from .preparing import prepare, prepared, tell_next
from .prompts import confirm, show_before_sending, yes_option
from .session import Session, pass_session
from .telling import list_progress, send_progress_option, withdraw_progress

if TYPE_CHECKING:
    from pydantic import JsonValue

    from medperf.datasets import LocalDataset
    from medperf.evaluation import Evaluation
    from medperf_contracts.associations import AssociationView, NewAssociation
    from medperf_contracts.registry import BenchmarkView

    from .work import Work

DATA_UID_HELP = (
    "The dataset: its server UID, or the beginning of its generated UID. Up to nine digits that do not begin with"
    " 0 are a server UID, anything else is a generated UID."
)


@click.group(no_args_is_help=True)
def dataset() -> None:
    """Datasets: prepare, submit, associate."""


dataset.add_command(ls)
dataset.add_command(prepare)
dataset.add_command(list_progress)
dataset.add_command(view)
dataset.add_command(withdraw_progress)


@dataset.command()
@click.option("--name", required=True, help="A name for the dataset, at most 128 characters.")
@click.option("--description", default="", help="What it is.")
@click.option("--location", default="", help="Where the data is.")
@click.option(
    "--data_path",
    required=True,
    type=click.Path(path_type=Path, readable=False),
    help="The folder with the raw data; only read.",
)
@click.option(
    "--labels_path",
    required=True,
    type=click.Path(path_type=Path, readable=False),
    help="The folder with the labels.",
)
@click.option("--benchmark", "-b", "benchmark_id", required=True, type=UID, help="The benchmark's UID.")
@send_progress_option
@how_options
@silent_yes_option
@pass_session
def create(
    session: Session,
    name: str,
    description: str,
    location: str,
    data_path: Path,
    labels_path: Path,
    benchmark_id: int,
    send_progress: bool | None,
    how: How,
) -> None:
    """Prepare data with a benchmark's preparation container.

    Nothing is sent but, where the container reports case by case and you agree to it, how many are at which stage.
    """
    from medperf.datasets import local_datasets
    from medperf.manifest import Role
    from medperf.preparation import Description

    from .progress import Progress
    from .work import Work, benchmark_view

    progress = Progress(4)
    known = local_datasets(session.home, on_damaged=lambda *_: None)
    names = {dataset.generated_uid: dataset.name for dataset in known}
    work = Work.begin(session, progress, how)
    benchmark = benchmark_view(work.gateway, benchmark_id)
    container = work.container(benchmark.preparation_id, Role.PREPARATION)
    about = Description(name, description, location)
    made = prepared(
        work, container, data_path, labels_path, about, benchmark_id=benchmark_id, send_progress=send_progress
    )
    is_new = tell_next(made)
    if is_new and (was := names.get(made.generated_uid, made.name)) != made.name:
        click.echo(f"This data was here already, as {printable(was)}; its name is now {printable(made.name)}.")


@dataset.command()
@click.option("--data_uid", "-d", help=DATA_UID_HELP)
@click.option(
    "--from",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="What `medperf dataset export` wrote on another machine; it is asked to take part as well.",
)
@yes_option
@pass_session
def submit(session: Session, data_uid: str | None, file: Path | None, yes: bool) -> None:
    """Register a prepared dataset's metadata: it is printed, you are asked, it is sent. The data stays."""
    from medperf.datasets import alone_with, find_dataset
    from medperf.errors import UsageError
    from medperf_contracts.registry import DatasetView

    from .carrying import submit_dataset
    from .changing import tell_registered

    session.check_sends()
    if file is not None and data_uid is None:
        submit_dataset(session, file, yes=yes)
        return
    if data_uid is None or file is not None:
        raise UsageError("Say which dataset to submit.", hint="Give either --data_uid UID or --from FILE.")
    gateway = session.gateway
    chosen = find_dataset(session.home, data_uid)
    with alone_with(session.home, chosen):
        chosen = find_dataset(session.home, chosen.generated_uid)
        if chosen.server_id is not None:
            click.echo(f"It is on the server already. Server UID: {chosen.server_id}")
            return
        chosen.check_prepared_by(gateway.user_id, gateway.username)
        chosen.verify()
        body = chosen.body()
        show_before_sending(f"This is all that will be sent to {session.server}:", body)
        confirm("Register this dataset?", yes=yes)
        registered = gateway.post("/datasets", body, DatasetView, seen=[f"container/{chosen.preparation.id}"])
        chosen.described_as(registered).linked_to(registered.id, registered.owner_id)
        tell_registered(body, registered)


@dataset.command()
@click.argument("dataset_uid", type=UID)
@click.option("--description", help="What it is.")
@click.option("--location", help="Where the data is.")
@validity_option
@yes_option
@pass_session
def update(
    session: Session,
    dataset_uid: int,
    description: str | None,
    location: str | None,
    is_valid: bool | None,
    yes: bool,
) -> None:
    """Change what the server has of your dataset, by its server UID; its data and statistics never change."""
    from medperf_contracts.registry import DatasetChanges, DatasetView

    from . import changing

    given = changing.what_was_given(description=description, location=location, is_valid=is_valid)
    changing.update(session, "dataset", dataset_uid, DatasetView, DatasetChanges, given, yes=yes)


@dataset.command()
@click.option("--benchmark_uid", "-b", "benchmark_id", required=True, type=UID, help="The benchmark's UID.")
@click.option("--data_uid", "-d", required=True, help=DATA_UID_HELP)
@how_options
@yes_option
@pass_session
def associate(session: Session, benchmark_id: int, data_uid: str, how: How, yes: bool) -> None:
    """Ask to take part in a benchmark, after its reference model has run on the data."""
    from medperf.datasets import alone_with, find_dataset
    from medperf_contracts.associations import LIVE

    from .progress import Progress
    from .work import (
        Work,
        ask_to_take_part,
        benchmark_view,
        check_open,
        check_prepared_for,
        latest_association,
        registered_id,
        who_sees_scores,
    )

    work = Work.begin(session, Progress(1), how)
    chosen = find_dataset(session.home, data_uid)
    with alone_with(session.home, chosen):
        dataset_id = registered_id(chosen)
        existing = latest_association(work.gateway, benchmark_id, dataset_id)
        if existing is not None and existing.state in LIVE:
            click.echo("It was asked for already.")
            _show(existing)
            return
        benchmark = benchmark_view(work.gateway, benchmark_id)
        check_open(benchmark)
        check_prepared_for(work.gateway, chosen, benchmark)
        evaluation = _compatibility_test(work, chosen, benchmark)
        chosen.verify()
        body = _request(benchmark_id, dataset_id, evaluation)
        show_before_sending(f"This request will be sent to {session.server}:", body)
        click.echo(who_sees_scores(benchmark))
        confirm(f"Ask to take part in benchmark {benchmark_id} ({benchmark.name})?", yes=yes)
        seen = [f"benchmark/{benchmark_id}", f"dataset/{dataset_id}"]
        _show(ask_to_take_part(work.gateway, body, seen))


@dataset.command()
@click.option("--benchmark", "-b", "benchmark_id", required=True, type=UID, help="The benchmark's UID.")
@click.option("--data_uid", "-d", required=True, help=DATA_UID_HELP)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The file to write; it must not be there yet.",
)
@how_options
@yes_option
@pass_session
def export(session: Session, benchmark_id: int, data_uid: str, output: Path, how: How, yes: bool) -> None:
    """Write a dataset's metadata and its request to take part to a file, to be submitted from elsewhere.

    The benchmark's reference model runs on the data first. What will be written is printed, you are asked.
    """
    from medperf.carried import TakingPart
    from medperf.datasets import alone_with, find_dataset

    from .carrying import check_is_free, write_dataset
    from .progress import Progress
    from .tables import as_yaml
    from .work import Work, benchmark_view, check_open, check_prepared_for, who_sees_scores

    check_is_free(output)
    work = Work.begin(session, Progress(1), how)
    chosen = find_dataset(session.home, data_uid)
    with alone_with(session.home, chosen):
        benchmark = benchmark_view(work.gateway, benchmark_id)
        check_open(benchmark)
        check_prepared_for(work.gateway, chosen, benchmark)
        evaluation = _compatibility_test(work, chosen, benchmark)
        chosen.verify()
        taking_part = TakingPart(benchmark_id=benchmark_id, summary=_summary(evaluation))
        show_before_sending("This is all of the dataset that will be written:", chosen.body())
        click.echo(f"And of the request to take part:\n\n{as_yaml(taking_part)}")
        click.echo(who_sees_scores(benchmark))
        confirm(f"Write it to {output}, to be submitted from elsewhere?", yes=yes)
        write_dataset(session, chosen.body(), taking_part, output)


def _compatibility_test(work: Work, dataset: LocalDataset, benchmark: BenchmarkView) -> Evaluation:
    """Run the benchmark's reference model and metrics on the data, and keep the result under its name."""
    from medperf.evaluation import evaluate, is_evaluated
    from medperf.manifest import Role
    from medperf.results import name_result

    model = work.container(benchmark.reference_model_id, Role.MODEL)
    metrics = work.container(benchmark.metrics_id, Role.METRICS)
    if not is_evaluated(work.session.home, dataset, model, metrics):
        work.choose_engines(model, metrics)
    with work.progress.step(f"reference model {model.id} · {model.name}"):
        evaluated = evaluate(
            work.runner,
            dataset,
            model,
            metrics,
            purpose="dataset associate",
            on_step=work.tell,
        )
        if evaluated.from_cache:
            work.progress.line("was run before: its result is taken from the local cache")
    if dataset.server_id is not None:
        name_result(
            work.session.home,
            evaluated.evaluation,
            benchmark_id=benchmark.id,
            model_id=model.id,
            dataset_id=dataset.server_id,
        )
    return evaluated.evaluation


def _request(benchmark_id: int, dataset_id: int, evaluation: Evaluation) -> NewAssociation:
    from medperf_contracts.associations import NewAssociation

    return NewAssociation(benchmark_id=benchmark_id, dataset_id=dataset_id, summary=_summary(evaluation))


def _summary(evaluation: Evaluation) -> dict[str, JsonValue]:
    """What a compatibility test gave: metrics and times, and nothing that a container printed."""
    seconds = (evaluation.finished_at - evaluation.started_at).total_seconds()
    return {
        "metrics": evaluation.metrics,
        "started_at": evaluation.started_at.isoformat(timespec="seconds"),
        "finished_at": evaluation.finished_at.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
    }


def _show(association: AssociationView) -> None:
    from medperf_contracts.associations import AssociationState

    click.echo(f"Association {association.id} is {association.state.value}.")
    if association.state is AssociationState.PENDING:
        click.echo("The benchmark's owner decides; see it with: medperf association ls")
    else:
        pair = f"--benchmark {association.benchmark_id} --data_uid {association.part_id}"
        click.echo(f"Next, run the benchmark: medperf benchmark run {pair}")
