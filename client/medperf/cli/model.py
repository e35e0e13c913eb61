"""`medperf model`: a model is a container in that role, and its UID is the container's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from medperf.errors import BadManifest, NotApproved, UsageError
from medperf.terminal import printable

from .changing import UID, not_allowed
from .container import STATES, container_columns
from .engines import How, how_options
from .listing import choice, mine_option, owner_filter, print_list, silent_yes_option
from .prompts import confirm, show_before_sending, yes_option
from .session import Session, pass_session
from .tables import json_option, print_view

if TYPE_CHECKING:
    from medperf.trials import Trial
    from medperf_contracts.associations import AssociationView
    from medperf_contracts.registry import BenchmarkView, ContainerView

    from .work import Work


@click.group()
def model() -> None:
    """Models: look at them, ask that one take part in a benchmark."""


@model.command()
@mine_option
@click.option("--name", metavar="NAME", help="Only those of this name.")
@click.option("--state", type=choice(STATES), help="Only those in this state.")
@json_option
@silent_yes_option
@pass_session
def ls(session: Session, mine: bool, name: str | None, state: str | None, as_json_text: bool) -> None:
    """List models: the containers whose manifests have a model's task."""
    from medperf_contracts.registry import ContainerView

    found = session.gateway.items("/containers", ContainerView, owner=owner_filter(mine), name=name, state=state)
    models = (container for container in found if _why_no_model(container) is None)
    print_list(models, container_columns(), as_json_text=as_json_text, if_empty="There are no such models.")


@model.command()
@click.argument("model_uid", type=UID)
@json_option
@silent_yes_option
@pass_session
def view(session: Session, model_uid: int, as_json_text: bool) -> None:
    """Show a model whole, with its manifest and parameters."""
    print_view(_model(session, model_uid), as_json_text=as_json_text)


@model.command()
@click.option("--benchmark_uid", "-b", "benchmark_id", required=True, type=UID, help="The benchmark's UID.")
@click.option("--model_uid", "-m", "model_id", required=True, type=UID, help="The model's: its container's UID.")
@how_options
@yes_option
@pass_session
def associate(session: Session, benchmark_id: int, model_id: int, how: How, yes: bool) -> None:
    """Ask that a model take part in a benchmark, after it has run on the benchmark's demo data."""
    from medperf.trials import TASKS
    from medperf_contracts.associations import LIVE, AssociationView, NewAssociation

    from .progress import Progress
    from .work import Work, ask_to_take_part, benchmark_view, check_open

    work = Work.begin(session, Progress(len(TASKS)), how)
    container = _model(session, model_id)
    seen = [f"benchmark/{benchmark_id}", f"container/{model_id}"]
    asked = work.gateway.items("/associations", AssociationView, seen=seen, benchmark=benchmark_id, model=model_id)
    live = next((one for one in asked if one.state in LIVE), None)
    if live is not None:
        click.echo("It was asked for already.")
        _show(live)
        return
    benchmark = benchmark_view(work.gateway, benchmark_id)
    if work.gateway.user_id not in (container.owner_id, benchmark.owner_id):
        raise not_allowed(
            "its owner or the benchmark's owner",
            f"model {model_id}",
            f"The model's owner is {container.owner_name}, the benchmark's {benchmark.owner_name}.",
        )
    check_open(benchmark)
    _check_ready(container, benchmark)
    body = NewAssociation(benchmark_id=benchmark_id, model_id=model_id)
    if benchmark.demo_data_url is None:
        click.echo(
            f"Benchmark {benchmark.id} has no demo data: there is no compatibility test, and the request has no"
            " metrics.",
            err=True,
        )
    else:
        trial = _compatibility_test(work, container, benchmark)
        body = NewAssociation(benchmark_id=benchmark_id, model_id=model_id, summary=trial.summary())
    show_before_sending(f"This request will be sent to {session.server}:", body)
    confirm(
        printable(
            f"Ask that model {container.id} ({container.name}) take part in benchmark {benchmark.id}"
            f" ({benchmark.name})?"
        ),
        yes=yes,
    )
    _show(ask_to_take_part(work.gateway, body, seen))


def _model(session: Session, uid: int) -> ContainerView:
    """A registered container that can be a model."""
    from medperf_contracts.registry import ContainerView

    container = session.gateway.get(f"/containers/{uid}", ContainerView, seen=[f"container/{uid}"])
    why = _why_no_model(container)
    if why is not None:
        raise UsageError(
            f"Container {uid} ({container.name}) is no model: {why}.",
            hint="`medperf model ls` shows the models; `medperf container view` shows any container.",
        )
    return container


def _why_no_model(container: ContainerView) -> str | None:
    from medperf.manifest import Role, lacking, parse_manifest

    try:
        missing = lacking(parse_manifest(container.manifest), Role.MODEL)
    except BadManifest as error:
        return str(error)
    return None if missing is None else f"{missing} is missing in its manifest"


def _check_ready(container: ContainerView, benchmark: BenchmarkView) -> None:
    """Raise, before anything runs, what the server would refuse afterwards."""
    from medperf_contracts.values import State

    if container.id == benchmark.reference_model_id:
        raise UsageError(
            f"Model {container.id} is the reference model of benchmark {benchmark.id}.",
            hint="Nothing is left to do: the reference model takes part already.",
        )
    if container.state is not State.OPERATION or not container.is_valid:
        why = "marked as not valid" if not container.is_valid else "still in development"
        mend = "update {id} --valid" if not container.is_valid else "set-operational {id}"
        raise NotApproved(
            f"Model {container.id} ({container.name}) is {why}.",
            hint=f"Its owner, {container.owner_name}: medperf container {mend.format(id=container.id)}",
        )


def _compatibility_test(work: Work, container: ContainerView, benchmark: BenchmarkView) -> Trial:
    """Prepare the benchmark's demo data, run the model on it, and compute the benchmark's metrics."""
    from medperf.manifest import Role
    from medperf.scratch import scratch_folder
    from medperf.trials import Parts, try_out

    from .test import benchmark_demo_data

    parts = Parts(
        preparation=work.container(benchmark.preparation_id, Role.PREPARATION),
        model=work.bring(container, Role.MODEL),
        metrics=work.container(benchmark.metrics_id, Role.METRICS),
    )
    with scratch_folder(work.session.home) as place:
        demo = benchmark_demo_data(work, benchmark, place / "demo_data")
        work.choose_engines(parts.preparation, parts.model, parts.metrics)
        return try_out(
            work.runner,
            parts,
            data_path=demo.data_path,
            labels_path=demo.labels_path,
            purpose="model associate",
            step=work.progress.step,
        )


def _show(association: AssociationView) -> None:
    from medperf_contracts.associations import AssociationState

    click.echo(f"Association {association.id} is {association.state.value}.")
    if association.state is AssociationState.PENDING:
        click.echo("The other side decides; see it with: medperf association ls")
