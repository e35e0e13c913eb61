"""What commands that run containers work with, and what they ask the server first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from medperf.errors import NotApproved, Refused, UsageError
from medperf.terminal import printable

from .engines import How, make_engines

if TYPE_CHECKING:
    from medperf.api import Gateway
    from medperf.containers import LocalContainer
    from medperf.datasets import LocalDataset
    from medperf.engines.choice import Engines
    from medperf.manifest import Role
    from medperf.tasks import Runner
    from medperf_contracts.associations import AssociationView, NewAssociation
    from medperf_contracts.registry import BenchmarkView, ContainerView

    from .progress import Progress
    from .session import Session

_STEPS = {
    "hash": "checking that the prepared data is as it was prepared",
    "infer": "running the model",
    "evaluate": "computing the metrics",
}


@dataclass(frozen=True)
class Work:
    """A command's runner and gateway; containers are brought here as they are needed."""

    session: Session
    gateway: Gateway
    engines: Engines
    runner: Runner
    progress: Progress

    @classmethod
    def begin(cls, session: Session, progress: Progress, how: How, *, jobs: int = 1) -> Work:
        """Make ready to run containers, and first end what earlier commands that died left behind.

        `jobs` is how many may run at once.
        """
        from medperf.journal import Journal
        from medperf.left_over import end_left_over
        from medperf.tasks import Runner

        shares = how.shares(jobs)
        session.progress = progress
        gateway = session.gateway
        journal = Journal(session.home.journal)
        engines = make_engines(session, how, progress.line)
        end_left_over(session.home, journal, engines, say=lambda text: click.echo(printable(text), err=True))
        runner = Runner(session.home, journal, engines.choose, progress.line, shares, how.root_is_writable)
        return cls(session, gateway, engines, runner, progress)

    def tell(self, step: str) -> None:
        """Say which step of an evaluation begins."""
        self.progress.line(_STEPS.get(step, step))

    def container(self, container_id: int, role: Role) -> LocalContainer:
        """A registered container, checked and ready to run in this role."""
        return self.bring(self.registered_container(container_id), role)

    def registered_container(self, container_id: int) -> ContainerView:
        """A container as it is registered."""
        from medperf_contracts.registry import ContainerView

        return self.gateway.get(f"/containers/{container_id}", ContainerView, seen=[f"container/{container_id}"])

    def bring(self, view: ContainerView, role: Role) -> LocalContainer:
        """A registered container's files, checked and ready to run in this role."""
        from medperf.assets import Assets
        from medperf.containers import fetch_container

        assets = Assets(
            self.session.home.assets,
            lambda url, sink: self.gateway.download(
                url, sink, on_progress=lambda done, total: self.progress.note(_fetched(done, total))
            ),
            on_wait=self.progress.line,
        )
        return fetch_container(view, role=role, home=self.session.home, assets=assets)

    def with_local_image(self, container: LocalContainer) -> LocalContainer:
        """A container that is not registered, with the image that Docker has under its name, if it has one."""
        docker = container.manifest.docker
        image_hash = None if docker is None else self.engines.image_here(docker.image)
        return replace(container, image_hash=image_hash)

    def choose_engines(self, *containers: LocalContainer) -> None:
        """Choose what runs these, before the work begins: somebody may be asked, and images may have to come."""
        for container in containers:
            self.runner.choose(container.runnable)


def benchmark_view(gateway: Gateway, benchmark_id: int) -> BenchmarkView:
    """A registered benchmark."""
    from medperf_contracts.registry import BenchmarkView

    return gateway.get(f"/benchmarks/{benchmark_id}", BenchmarkView, seen=[f"benchmark/{benchmark_id}"])


def who_sees_scores(benchmark: BenchmarkView) -> str:
    """Who will see what a dataset's owner submits to a benchmark, to be read before they answer."""
    whose = f"benchmark {benchmark.id} ({benchmark.name})"
    if benchmark.public_scores:
        text = (
            f"Scores in {whose} are public: everybody with an account on this server sees them, by model, without"
            " the dataset that they are of. You and the benchmark's owner see that too."
        )
    else:
        text = f"Scores in {whose} are seen by you and by the benchmark's owner, and by nobody else."
    return printable(text)


def check_open(benchmark: BenchmarkView) -> None:
    """Raise NotApproved unless datasets may ask to take part in this benchmark."""
    from medperf_contracts.values import Decision, State

    if benchmark.state is not State.OPERATION:
        why = "is still in development"
    elif benchmark.approval is not Decision.APPROVED:
        why = f"is not approved (its approval is {benchmark.approval.value})"
    elif not benchmark.is_valid:
        why = "is marked as not valid"
    else:
        return
    raise NotApproved(
        f"Benchmark {benchmark.id} ({benchmark.name}) {why}.",
        hint=f"Ask its owner, {benchmark.owner_name}; `medperf benchmark ls` shows those that are open.",
    )


def check_prepared_for(gateway: Gateway, dataset: LocalDataset, benchmark: BenchmarkView) -> None:
    """Raise UsageError unless the benchmark's own preparation container, by hash, made the dataset."""
    from medperf_contracts.registry import ContainerView

    if dataset.preparation.id == benchmark.preparation_id:
        return
    path = f"/containers/{benchmark.preparation_id}"
    preparation = gateway.get(path, ContainerView, seen=[f"container/{benchmark.preparation_id}"])
    if preparation.hash != dataset.preparation.hash:
        raise UsageError(
            f"Dataset {dataset.generated_uid} was prepared by container {dataset.preparation.id}"
            f" ({dataset.preparation.name}), but benchmark {benchmark.id} needs container {preparation.id}"
            f" ({preparation.name}).",
            hint=f"Prepare the data again with `medperf dataset create --benchmark {benchmark.id}`.",
        )


def registered_id(dataset: LocalDataset) -> int:
    """The dataset's server UID; UsageError if it was not submitted."""
    from medperf.datasets import uid_to_type

    if dataset.server_id is None:
        raise UsageError(
            f"Dataset {dataset.generated_uid} is not on the server yet.",
            hint=f"Submit it first: medperf dataset submit --data_uid {uid_to_type(dataset)}",
        )
    return dataset.server_id


def latest_association(gateway: Gateway, benchmark_id: int, dataset_id: int) -> AssociationView | None:
    """The live association of a dataset with a benchmark, else the last one that ended, else None."""
    from medperf_contracts.associations import LIVE, AssociationView

    seen = [f"benchmark/{benchmark_id}", f"dataset/{dataset_id}"]
    found = list(
        gateway.items("/associations", AssociationView, seen=seen, benchmark=benchmark_id, dataset=dataset_id)
    )
    live = [one for one in found if one.state in LIVE]
    return max(live or found, key=lambda one: one.id, default=None)


def approved_association(gateway: Gateway, benchmark_id: int, dataset_id: int) -> AssociationView:
    """The dataset's approved association with the benchmark; NotApproved says its state and what to do."""
    from medperf_contracts.associations import AssociationState

    association = latest_association(gateway, benchmark_id, dataset_id)
    pair = f"--benchmark_uid {benchmark_id} --data_uid {dataset_id}"
    if association is None:
        raise NotApproved(
            f"Dataset {dataset_id} has not asked to take part in benchmark {benchmark_id}.",
            hint=f"Ask: medperf dataset associate {pair}",
        )
    if association.state is AssociationState.APPROVED:
        return association
    reason = f" The reason given: {association.reason}" if association.reason else ""
    if association.state is AssociationState.PENDING:
        hint = "Wait for the benchmark's owner to decide; `medperf association ls` shows when it is APPROVED."
    else:
        hint = f"Settle it with the benchmark's owner, then ask again: medperf dataset associate {pair}"
    raise NotApproved(
        f"The association of dataset {dataset_id} with benchmark {benchmark_id} is {association.state.value}, not"
        f" APPROVED.{reason}",
        hint=hint,
    )


def news_of_due(session: Session, association: AssociationView) -> list[str]:
    """What the question of what is due builds on; for the benchmark's owner also its models and their priorities.

    The list of them says their versions, so that an order that was set a moment ago is the one that is answered.
    """
    from medperf_contracts.associations import AssociationState, AssociationView, PartKind

    benchmark_id = association.benchmark_id
    news = [f"benchmark/{benchmark_id}", f"dataset/{association.part_id}", f"association/{association.id}"]
    if session.is_offline or association.benchmark_owner_id != session.gateway.user_id:
        return news
    approved = session.gateway.items(
        "/associations", AssociationView, benchmark=benchmark_id, state=AssociationState.APPROVED
    )
    return news + [f"association/{one.id}" for one in approved if one.part_kind is PartKind.MODEL]


def ask_to_take_part(gateway: Gateway, body: NewAssociation, seen: Sequence[str]) -> AssociationView:
    """Send a request to take part; the one that is live where it was asked for from elsewhere meanwhile."""
    from medperf_contracts.associations import AssociationView

    try:
        return gateway.post("/associations", body, AssociationView, seen=seen)
    except Refused as refused:
        there = existing_id(refused, "association")
        if there is None:
            raise
        return gateway.get(f"/associations/{there}", AssociationView, seen=[f"association/{there}"])


def existing_id(refused: Refused, kind: str) -> int | None:
    """The ID of the thing of this kind that the server says is there already."""
    named, _, thing_id = (refused.existing or "").partition("/")
    return int(thing_id) if named == kind and thing_id.isdecimal() else None


def _fetched(done: int, total: int | None) -> str:
    """How much of a file is here, in MB."""
    of = f" of {total / 1e6:.1f}" if total is not None else ""
    return f"{done / 1e6:.1f}{of} MB fetched"
