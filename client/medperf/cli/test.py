"""`medperf test`: try a benchmark's containers before anything is registered."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medperf.errors import BadManifest, UsageError
from medperf.terminal import printable

from .changing import UID, check_address, is_here
from .engines import How, how_options
from .listing import silent_yes_option
from .session import Session, pass_session
from .tables import json_option, print_view

if TYPE_CHECKING:
    from medperf.containers import LocalContainer
    from medperf.demo_data import DemoData
    from medperf.drafts import Draft
    from medperf.manifest import Role
    from medperf.trials import Parts
    from medperf_contracts.registry import BenchmarkView, ContainerView

    from .work import Work

_ROLES = ("preparation", "model", "metrics")


@click.group()
def test() -> None:
    """Try containers out before anything is registered."""


@dataclass(frozen=True)
class Given:
    """A container that a person named: a folder or manifest here, or a registered one's UID."""

    role: str | None
    uid: int | None
    draft: Draft | None


@dataclass(frozen=True)
class Data:
    """The data that a person named, if they did."""

    demo_data: str | None
    data_path: Path | None
    labels_path: Path | None

    @property
    def file(self) -> Path | None:
        """The archive of demo data that is on this machine."""
        if self.demo_data is None or self.demo_data.startswith(("http://", "https://")):
            return None
        file = Path(self.demo_data)
        return file if is_here(file) and file.is_file() else None

    @property
    def url(self) -> str | None:
        """Where demo data must be fetched from."""
        return self.demo_data if self.file is None else None


@test.command()
@click.option(
    "--container",
    "-c",
    "containers",
    multiple=True,
    metavar="[ROLE=]PATH|UID",
    help="A container here or registered; its role, where its tasks leave it open: preparation, model, metrics."
    " May be repeated.",
)
@click.option("--benchmark", "-b", "benchmark_id", type=UID, help="Gives the roles not named, and its demo data.")
@click.option("--demo_data", metavar="URL|FILE", help="An archive of demo data; else the benchmark's.")
@click.option("--data_path", type=click.Path(path_type=Path), help="Instead: a folder with raw data; only read.")
@click.option("--labels_path", type=click.Path(path_type=Path), help="With it: the folder with its labels.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Keep what each task wrote here.")
@how_options
@json_option
@silent_yes_option
@pass_session
def run(
    session: Session,
    containers: tuple[str, ...],
    benchmark_id: int | None,
    demo_data: str | None,
    data_path: Path | None,
    labels_path: Path | None,
    keep: Path | None,
    how: How,
    as_json_text: bool,
) -> None:
    """Run a preparation, a model and metrics on demo data or your own, each local or registered.

    Nothing is sent and nothing registered. Only what is on the server needs it, and a login.
    """
    from medperf.scratch import scratch_folder
    from medperf.trials import TASKS, check_keep, try_out

    from .progress import Progress
    from .work import Work, benchmark_view

    data = _data(demo_data, data_path, labels_path, benchmark_id)
    given = [_given(text) for text in containers]
    if keep is not None:
        check_keep(keep)
    session.asks_server = benchmark_id is not None or data.url is not None or any(one.uid for one in given)
    work = Work.begin(session, Progress(len(TASKS)), how)
    benchmark = None if benchmark_id is None else benchmark_view(work.gateway, benchmark_id)
    if benchmark is not None and benchmark.demo_data_url is None and data == Data(None, None, None):
        raise UsageError(
            f"Benchmark {benchmark.id} has no demo data.",
            hint="Give --demo_data, or --data_path and --labels_path.",
        )
    with scratch_folder(session.home) as place:
        parts = _parts(work, given, benchmark, place)
        raw = _raw(work, data, benchmark, place / "demo_data")
        work.choose_engines(parts.preparation, parts.model, parts.metrics)
        trial = try_out(
            work.runner,
            parts,
            data_path=raw.data_path,
            labels_path=raw.labels_path,
            purpose="test run",
            step=work.progress.step,
            keep=keep,
        )
    shown = {"statistics": trial.statistics, "metrics": trial.metrics, "seconds": trial.seconds}
    print_view(shown, as_json_text=as_json_text)
    if keep is not None:
        click.echo(printable(f"What each task wrote is kept in {keep}"), err=True)


def _data(
    demo_data: str | None, data_path: Path | None, labels_path: Path | None, benchmark_id: int | None
) -> Data:
    """The data to use; UsageError unless it is one of demo data, own data, or the benchmark's demo data."""
    if (data_path is None) != (labels_path is None):
        raise UsageError("--data_path and --labels_path go together.", hint="Give both, or neither.")
    if demo_data is not None and data_path is not None:
        raise UsageError("There is demo data and own data.", hint="Give --demo_data, or --data_path, not both.")
    if demo_data is None and data_path is None and benchmark_id is None:
        raise UsageError(
            "There is no data to run on.",
            hint="Give --demo_data, or --data_path and --labels_path, or a --benchmark that has demo data.",
        )
    data = Data(demo_data, data_path, labels_path)
    if data.url is not None:
        check_address(data.url, "--demo_data")
    return data


def _given(text: str) -> Given:
    """A container as it was typed; UsageError, or what is wrong with a container that is here."""
    from medperf.drafts import Draft

    role, _, rest = text.partition("=")
    if role not in _ROLES or not rest:
        role, rest = "", text
    if rest.isascii() and rest.isdecimal():
        return Given(role or None, int(rest), None)
    path = Path(rest)
    if not is_here(path):
        raise UsageError(
            f"There is no file or folder {rest}.",
            hint="Give an MLCube folder, a manifest's file, or a registered container's UID, perhaps as model=…",
        )
    return Given(role or None, None, Draft.read(path))


def _parts(work: Work, given: Sequence[Given], benchmark: BenchmarkView | None, place: Path) -> Parts:
    """A container for each role: those that were named, the others from the benchmark."""
    from medperf.manifest import Role
    from medperf.trials import Parts

    chosen: dict[Role, ContainerView | Draft] = {}
    for one in given:
        source = one.draft or work.registered_container(one.uid or 0)
        role = _role(source, one.role)
        if role in chosen:
            raise UsageError(
                f"Two containers are to be the {role}.", hint="Name one for each role: --container model=PATH"
            )
        chosen[role] = source
    missing = [role for role in Role if role not in chosen]
    if benchmark is not None:
        ids = {
            Role.PREPARATION: benchmark.preparation_id,
            Role.MODEL: benchmark.reference_model_id,
            Role.METRICS: benchmark.metrics_id,
        }
        chosen |= {role: work.registered_container(ids[role]) for role in missing}
    elif missing:
        raise UsageError(
            f"No container is named for {' and '.join(missing)}.",
            hint="Name it with --container, or give --benchmark, whose own is then used.",
        )
    ready = {role: _ready(work, source, role, place) for role, source in chosen.items()}
    return Parts(preparation=ready[Role.PREPARATION], model=ready[Role.MODEL], metrics=ready[Role.METRICS])


def _role(source: ContainerView | Draft, named: str | None) -> Role:
    """What the container is to be: as the person said, else the only role whose tasks it has."""
    from medperf.drafts import Draft
    from medperf.manifest import Role, fitting_roles, parse_manifest, require_tasks

    if isinstance(source, Draft):
        what, manifest = f"The container of {source.source}", source.manifest
    else:
        what = f"Container {source.id} ({source.name})"
        manifest = parse_manifest(source.manifest, what=f"The manifest of container {source.id}")
    if named is not None:
        require_tasks(manifest, named)
        return Role(named)
    fitting = fitting_roles(manifest)
    if not fitting:
        raise BadManifest(
            f"{what} has the tasks of no role.", hint="The tasks of each role are in docs/containers.md."
        )
    if len(fitting) > 1:
        raise UsageError(f"{what} can be {' or '.join(fitting)}.", hint=f"Say which: --container {fitting[0]}=…")
    return fitting[0]


def _ready(work: Work, source: ContainerView | Draft, role: Role, place: Path) -> LocalContainer:
    from medperf.drafts import Draft

    if isinstance(source, Draft):
        return work.with_local_image(source.lay_out(place, role))
    return work.bring(source, role)


def _raw(work: Work, data: Data, benchmark: BenchmarkView | None, folder: Path) -> DemoData:
    """The raw data: the person's own, or demo data unpacked in `folder`, whose hash is said."""
    from medperf.demo_data import DemoData, unpack_demo_data

    from .changing import downloads, fetched_new

    if data.data_path is not None and data.labels_path is not None:
        return DemoData(data.data_path, data.labels_path)
    if data.file is not None:
        archive, digest = data.file, _sha256(data.file)
    elif data.url is not None:
        archive, digest = fetched_new(downloads(work.session, work.progress), data.url, lambda _: nullcontext())
    elif benchmark is not None:
        return benchmark_demo_data(work, benchmark, folder)
    else:
        raise TypeError("there is data or a benchmark")
    click.echo(printable(f"Demo data {data.demo_data} has the SHA-256 {digest}"), err=True)
    return unpack_demo_data(archive, folder)


def benchmark_demo_data(work: Work, benchmark: BenchmarkView, folder: Path) -> DemoData:
    """A benchmark's demo data, checked against its registered hash and unpacked as the new folder `folder`."""
    from medperf.demo_data import unpack_demo_data

    from .changing import downloads

    url, registered = benchmark.demo_data_url, benchmark.demo_data_hash
    if url is None or registered is None:
        raise TypeError("it was asked for its demo data before it was known to have some")
    return unpack_demo_data(downloads(work.session, work.progress).fetch(url, registered), folder)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
