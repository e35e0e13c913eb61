"""`medperf benchmark`: look at benchmarks, set one up, and run one on a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import click

from medperf.terminal import printable

from . import benchmark_setup
from .benchmark_views import ls, view
from .changing import UID
from .dataset import DATA_UID_HELP
from .engines import How, how_options
from .listing import silent_yes_option
from .session import Session, pass_session
from .wanted import ModelUids, wanted_models

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from medperf.containers import LocalContainer
    from medperf.datasets import LocalDataset
    from medperf.errors import ClientError
    from medperf.home import Home
    from medperf_contracts.associations import AssociationView

    from .work import Work

_HEADERS = ("model", "local result UID", "partial result", "from cache", "error")
# The table has one line a model: the whole error stands above it.
_ERROR_CHARACTERS = 60
_JOBS_MOST = 64


@click.group(no_args_is_help=True)
def benchmark() -> None:
    """Benchmarks: look at them, set them up, run them."""


for command in (
    ls,
    view,
    benchmark_setup.submit,
    benchmark_setup.set_operational,
    benchmark_setup.approve,
    benchmark_setup.reject,
    benchmark_setup.update,
):
    benchmark.add_command(command)


@dataclass(frozen=True)
class Outcome:
    """What became of one model: its result's name, or why there is none."""

    model_id: int
    name: str | None = None
    is_partial: bool = False
    from_cache: bool = False
    error: ClientError | None = None

    def row(self) -> tuple[object, ...]:
        """Its line in the table."""
        if self.error is not None:
            return (self.model_id, "", "", "", _in_short(self.error))
        return (self.model_id, self.name, self.is_partial, self.from_cache, "")


@dataclass(frozen=True)
class Order:
    """What is to be run, and what of earlier runs counts."""

    benchmark_id: int
    ignore_model_errors: bool
    rerun: bool
    # How many models at once.
    jobs: int

    def is_anew(self, home: Home, dataset: LocalDataset, model: LocalContainer, metrics: LocalContainer) -> bool:
        """Whether a model is run whatever was run before: what was submitted, in any benchmark, is final."""
        from medperf.evaluation import evaluation_key
        from medperf.results import is_submitted

        return self.rerun and not is_submitted(home, evaluation_key(dataset.data_hash, model.hash, metrics.hash))


@benchmark.command()
@click.option("--benchmark", "-b", "benchmark_id", required=True, type=UID, help="The benchmark's UID.")
@click.option("--data_uid", "-d", required=True, help=DATA_UID_HELP)
@click.option(
    "--ignore_model_errors",
    is_flag=True,
    help="Where a model fails after writing some predictions, compute a partial result from them.",
)
@click.option(
    "--models",
    "--model",
    "-m",
    "models",
    type=ModelUids(),
    multiple=True,
    help="Only these models, in this order; may be repeated.",
)
@click.option(
    "--models_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Only the models whose UIDs are in this file, one on each line, in its order.",
)
@click.option(
    "--rerun",
    "--no_cache",
    "rerun",
    is_flag=True,
    help="Run again what was run before, too; what was submitted is final, and left as it is.",
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(1, _JOBS_MOST),
    default=1,
    metavar="N",
    help="Run so many models at once; they share the machine's memory, and each GPU is one's at a time.",
)
@how_options
@silent_yes_option
@pass_session
def run(
    session: Session,
    benchmark_id: int,
    data_uid: str,
    ignore_model_errors: bool,
    models: tuple[tuple[int, ...], ...],
    models_file: Path | None,
    rerun: bool,
    jobs: int,
    how: How,
) -> None:
    """Run every model of a benchmark on a dataset, or those named. Nothing is sent."""
    from medperf.datasets import alone_with, find_dataset

    from .progress import Progress
    from .work import Work, approved_association, benchmark_view, registered_id

    # Before anything local: where the server has another store, the local folder may be set aside.
    gateway = session.gateway
    chosen = find_dataset(session.home, data_uid)
    with alone_with(session.home, chosen):
        dataset_id = registered_id(chosen)
        association = approved_association(gateway, benchmark_id, dataset_id)
        due = wanted_models(_due(session, association), models, models_file)
        work = Work.begin(session, Progress(len(due), at_once=jobs), how, jobs=jobs)
        metrics_id = benchmark_view(gateway, benchmark_id).metrics_id
        order = Order(benchmark_id, ignore_model_errors=ignore_model_errors, rerun=rerun, jobs=jobs)
        outcomes = _run_all(work, chosen, order, due, metrics_id)
    report(outcomes)


def _due(session: Session, association: AssociationView) -> list[int]:
    """The IDs of the benchmark's models, in the order in which the server, or a bundle, says to run them."""
    from medperf.errors import NotApproved
    from medperf_contracts.results import DueView

    from .work import news_of_due

    benchmark_id, dataset_id = association.benchmark_id, association.part_id
    seen = news_of_due(session, association)
    items = session.gateway.items(
        "/due", DueView, seen=seen, is_one_page=True, benchmark=benchmark_id, dataset=dataset_id
    )
    due = [item.model_id for item in items]
    if not due:
        raise NotApproved(
            f"No result of dataset {dataset_id} is wanted in benchmark {benchmark_id} any more.",
            hint="Look at `medperf association ls` and `medperf benchmark view`: an approval or a validity ended.",
        )
    return due


def _run_all(
    work: Work,
    dataset: LocalDataset,
    order: Order,
    model_ids: Sequence[int],
    metrics_id: int,
) -> list[Outcome]:
    """Bring every container here, then run the models in their order; one that fails does not stop the others."""
    from medperf.at_once import each
    from medperf.evaluation import is_begun, is_evaluated
    from medperf.manifest import Role

    from .forecast import forecast

    metrics = work.container(metrics_id, Role.METRICS)

    def is_done(model: LocalContainer) -> bool:
        home = work.session.home
        if order.is_anew(home, dataset, model, metrics):
            return False
        return is_evaluated(home, dataset, model, metrics, partial_is_enough=order.ignore_model_errors)

    models = {model_id: _fetched(work, model_id, metrics, is_done) for model_id in model_ids}
    here = [model for model in models.values() if not isinstance(model, Outcome)]
    to_run = [model for model in here if not is_done(model)]
    if to_run:
        line = forecast(work.runner.journal, work.session.home.runs, to_run, done=len(here) - len(to_run))
        click.echo(line, err=True)
        at_once = work.runner.shares.at_once
        if at_once < min(order.jobs, len(to_run)):
            click.echo(f"Memory for {at_once} at once, by --memory_limit: the others wait for theirs.", err=True)

    # One container under two IDs is run for one of them, and found by the other.
    alone = {model.hash: Lock() for model in here}

    def outcome_of(model_id: int) -> Outcome:
        model = models[model_id]
        if not isinstance(model, Outcome):
            with alone[model.hash]:
                return _run_one(work, dataset, order, model, metrics)
        with work.progress.step(f"model {model_id}"):
            work.progress.line("cannot be run, as said above")
        return model

    # What still runs since an earlier command has its memory and GPUs already: it comes before who wants some.
    begun = {model.id for model in here if not order.rerun and is_begun(work.runner, dataset, model)}
    sequence = sorted(models, key=lambda model_id: model_id not in begun)
    done = each(
        order.jobs, [partial(outcome_of, model_id) for model_id in sequence], stopping=work.runner.stopping
    )
    by_model = dict(zip(sequence, done, strict=True))
    outcomes = [by_model[model_id] for model_id in models]
    if all(outcome.error is not None or outcome.from_cache for outcome in outcomes):
        # Nothing ran, so nothing else would notice that the prepared data is no longer what these came from.
        dataset.verify()
    return outcomes


def _fetched(
    work: Work, model_id: int, metrics: LocalContainer, is_done: Callable[[LocalContainer], bool]
) -> LocalContainer | Outcome:
    """A model, ready to run, with engines for it and the metrics unless it ran before; or why it is not."""
    from medperf.errors import (
        BadManifest,
        EngineUnavailable,
        IntegrityError,
        Refused,
        ServerUnreachable,
        UsageError,
    )
    from medperf.manifest import Role

    try:
        registered = work.registered_container(model_id)
    except Refused as error:
        _tell(work, model_id, error)
        return Outcome(model_id, error=error)
    try:
        model = work.bring(registered, Role.MODEL)
        if not is_done(model):
            work.choose_engines(model, metrics)
        return model
    except (BadManifest, EngineUnavailable, IntegrityError, Refused, ServerUnreachable, UsageError) as error:
        _tell(work, model_id, error)
        return Outcome(model_id, error=error)


def _run_one(
    work: Work,
    dataset: LocalDataset,
    order: Order,
    model: LocalContainer,
    metrics: LocalContainer,
) -> Outcome:
    from medperf.errors import BadManifest, ContainerFailed, EngineUnavailable, IntegrityError, UsageError
    from medperf.evaluation import evaluate
    from medperf.results import name_result

    from .work import registered_id

    try:
        with work.progress.step(f"model {model.id} · {model.name}"):
            evaluated = evaluate(
                work.runner,
                dataset,
                model,
                metrics,
                purpose="benchmark run",
                on_step=work.tell,
                ignore_model_errors=order.ignore_model_errors,
                anew=order.is_anew(work.session.home, dataset, model, metrics),
            )
            if evaluated.from_cache:
                why = "was submitted, which is final: " if order.rerun else "was run before: "
                work.progress.line(f"{why}its result is taken from the local cache")
    except (BadManifest, ContainerFailed, EngineUnavailable, IntegrityError, UsageError) as error:
        if isinstance(error, IntegrityError):
            dataset.verify()  # altered data is no fault of this model's, and stops all
        _tell(work, model.id, error)
        return Outcome(model.id, error=error)
    evaluation = evaluated.evaluation
    named = name_result(
        work.session.home,
        evaluation,
        benchmark_id=order.benchmark_id,
        model_id=model.id,
        dataset_id=registered_id(dataset),
    )
    return Outcome(model.id, named.name, evaluation.is_partial, evaluated.from_cache)


def report(outcomes: Sequence[Outcome]) -> None:
    """Print the table and the counts; PartlyDone where some models failed, the first's error where all did."""
    from medperf.errors import PartlyDone

    from .tables import print_table

    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    skipped = [outcome for outcome in outcomes if outcome.from_cache]
    ran = [outcome for outcome in outcomes if outcome.error is None and not outcome.from_cache]
    print_table([outcome.row() for outcome in outcomes], _HEADERS)
    click.echo(f"Total number of models: {len(outcomes)}")
    click.echo(f"        {len(skipped)} were skipped (already executed), of which {_partial(skipped)}")
    click.echo(f"        {len(failed)} failed")
    click.echo(f"        {len(ran)} ran successfully, of which {_partial(ran)}")
    click.echo()
    if not failed:
        click.echo("✅ Done!")
    elif len(failed) < len(outcomes):
        raise PartlyDone(
            f"{len(failed)} of {len(outcomes)} models failed; the results of the others are kept.",
            hint="What each failure was stands above the table. The same command runs only what is missing.",
        )
    else:
        raise failed[0]


def _partial(outcomes: Sequence[Outcome]) -> str:
    return f"{sum(outcome.is_partial for outcome in outcomes)} have partial results"


def _tell(work: Work, model_id: int, error: ClientError) -> None:
    with work.progress.paused():
        click.echo(printable(f"Model {model_id}: {error}\nWhat to do: {error.hint}"), err=True)


def _in_short(error: ClientError) -> str:
    line = str(error).splitlines()[0]
    return line if len(line) <= _ERROR_CHARACTERS else line[: _ERROR_CHARACTERS - 1] + "…"
