"""`medperf bundle`: what a benchmark needs, as one file that can be carried to a site without internet."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medperf.engines.wheels import MACHINES, target_options
from medperf.errors import IntegrityError, NotApproved, UsageError
from medperf.terminal import printable

from .carrying import check_is_free
from .changing import UID, downloads
from .listing import silent_yes_option
from .prompts import confirm, yes_option
from .session import Session, pass_session

if TYPE_CHECKING:
    from medperf.bundles.gather import Gathering
    from medperf.bundles.layout import Bundle
    from medperf_contracts.accounts import UserView
    from medperf_contracts.registry import BenchmarkView
    from medperf_contracts.results import DueView

    from .progress import Progress


@click.group(no_args_is_help=True)
def bundle() -> None:
    """Bundles: what a benchmark needs, carried to a site without internet."""


@bundle.command()
@click.option("--benchmark", "-b", "benchmark_id", required=True, type=UID, help="The benchmark's UID.")
@click.option(
    "--data_uid",
    "-d",
    "dataset_id",
    type=UID,
    help="The server UID of the dataset that is approved for it; with it go all models. Without it goes what is"
    " needed to prepare data and to ask to take part.",
)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE.tar|FOLDER",
    help="Where to: a file where it ends in .tar, else a new folder.",
)
@click.option(
    "--platform",
    type=click.Choice(("docker", "sandbox")),
    help="What the site runs containers with: images go for docker only, packages for sandbox; else both.",
)
@click.option("--python_version", metavar="3.12", help="The site's Python; else that of this one.")
@click.option("--machine", type=click.Choice(MACHINES), help="The site's kind of machine; else this one's.")
@silent_yes_option
@pass_session
def export(
    session: Session,
    benchmark_id: int,
    dataset_id: int | None,
    output: Path,
    platform: str | None,
    python_version: str | None,
    machine: str | None,
) -> None:
    """Write all that a site needs to run a benchmark without asking the server. Nothing of the site is in it."""
    from medperf.bundles.gather import Gathering
    from medperf.engines.docker import DockerEngine
    from medperf.engines.docker_connection import podman
    from medperf.scratch import scratch_folder

    from .progress import Progress
    from .work import benchmark_view

    check_is_free(output)
    gateway = session.gateway
    benchmark = benchmark_view(gateway, benchmark_id)
    due = _due(session, benchmark, dataset_id)
    models = [benchmark.reference_model_id] if due is None else [one.model_id for one in due]
    session.progress = progress = Progress(len(models) + 2)
    engines = (DockerEngine(session.home.root), DockerEngine(session.home.root, podman()))
    for engine in engines:
        click.get_current_context().call_on_close(engine.close)
    with scratch_folder(session.home) as scratch:
        folder = scratch / "bundle"
        folder.mkdir()
        target = target_options(python_version or "", machine or "")
        assets = downloads(session, progress)
        into = Gathering(folder, session.home, assets, engines, platform, target, progress.line)
        maker = _answers(session, into, benchmark, dataset_id, due)
        _containers(session, into, benchmark, models, progress)
        made = _manifest(session, folder, benchmark, dataset_id, maker)
        _write(folder, output)
        _tell(made, folder, output)


@bundle.command("import")
@click.argument("path", metavar="FILE|FOLDER", type=click.Path(path_type=Path, exists=True))
@click.option("--fingerprint", metavar="SHA256", help="What the export printed; anything else is refused.")
@yes_option
@pass_session
def import_(session: Session, path: Path, fingerprint: str | None, yes: bool) -> None:
    """Take a bundle in: every file is checked by its hash, what it holds is printed, you are asked."""
    from medperf.assets import Assets
    from medperf.bundles import layout
    from medperf.bundles.bring import bring, opened_bundle, server_of
    from medperf.offline import link_datasets

    home = session.home
    with opened_bundle(path, home) as (brought, folder):
        if brought.server != session.server:
            raise UsageError(
                printable(f"The bundle is of {brought.server}, and the server here is {session.server}."),
                hint=printable(
                    f"Set MEDPERF_SERVER={brought.server} for this and all later commands (or --server)."
                ),
            )
        found = layout.fingerprint(folder)
        if fingerprint is not None and fingerprint.strip().lower() != found:
            raise IntegrityError(
                f"The bundle's fingerprint is {found}, not the one that was given.",
                hint="Do not use it: it is not the bundle whose fingerprint you were told.",
            )
        home.check_store(server_of(brought, folder))
        click.echo(_described(brought))
        click.echo(f"Fingerprint: {found}")
        confirm("Take it in? Its containers will be run here on your data, without network.", yes=yes)
        bring(brought, folder, home, Assets(home.assets, _nothing_is_fetched))
    for dataset in link_datasets(home):
        click.echo(printable(f"{dataset.name} ({dataset.generated_uid}) is dataset {dataset.server_id} there."))
    uid = "UID" if brought.dataset_id is None else brought.dataset_id
    next_step = (
        f"medperf dataset create --benchmark {brought.benchmark_id} …"
        if brought.dataset_id is None
        else f"medperf benchmark run --benchmark {brought.benchmark_id} --data_uid {uid}"
    )
    click.echo(f"Next: export MEDPERF_OFFLINE=1, then {next_step}")


def _nothing_is_fetched(url: str, _sink: object) -> None:
    raise UsageError(f"{url} is not in the bundle.", hint="Have it made again (medperf bundle export).")


def _due(session: Session, benchmark: BenchmarkView, dataset_id: int | None) -> list[DueView] | None:
    """What is due of the dataset, which must be approved; None without one: then the benchmark must be open."""
    from medperf_contracts.results import DueView

    from .work import approved_association, check_open, news_of_due

    if dataset_id is None:
        check_open(benchmark)
        return None
    association = approved_association(session.gateway, benchmark.id, dataset_id)
    seen = news_of_due(session, association)
    asked = {"benchmark": benchmark.id, "dataset": dataset_id}
    due = list(session.gateway.items("/due", DueView, seen=seen, is_one_page=True, **asked))
    if not due:
        raise NotApproved(
            f"No result of dataset {dataset_id} is wanted in benchmark {benchmark.id} any more.",
            hint="Look at `medperf association ls` and `medperf benchmark view`: an approval or a validity ended.",
        )
    return due


def _answers(
    session: Session, into: Gathering, benchmark: BenchmarkView, dataset_id: int | None, due: list[DueView] | None
) -> UserView:
    """Keep what the server says of itself, of who asks, of the benchmark and of the dataset."""
    from medperf_contracts.accounts import UserView
    from medperf_contracts.registry import DatasetView

    from .work import approved_association

    gateway = session.gateway
    maker = gateway.get("/users/me", UserView)
    into.answer("server", gateway.server())
    into.answer("me", maker)
    into.answer(f"benchmarks/{benchmark.id}", benchmark)
    if dataset_id is not None and due is not None:
        pair = f"{benchmark.id}-{dataset_id}"
        seen = [f"dataset/{dataset_id}"]
        into.answer(f"datasets/{dataset_id}", gateway.get(f"/datasets/{dataset_id}", DatasetView, seen=seen))
        into.answer(f"associations/{pair}", [approved_association(gateway, benchmark.id, dataset_id)])
        into.answer(f"due/{pair}", due)
    return maker


def _containers(
    session: Session, into: Gathering, benchmark: BenchmarkView, models: list[int], progress: Progress
) -> None:
    """Take in every container of the benchmark, which together must be what its hash says."""
    from medperf.bundles.gather import check_is_whole
    from medperf.manifest import Role
    from medperf_contracts.hashing import benchmark_hash
    from medperf_contracts.registry import ContainerView

    wanted = [(benchmark.preparation_id, Role.PREPARATION), (benchmark.metrics_id, Role.METRICS)]
    hashes = {}
    for uid, role in [*wanted, *((model, Role.MODEL) for model in models)]:
        view = session.gateway.get(f"/containers/{uid}", ContainerView, seen=[f"container/{uid}"])
        with progress.step(f"{role.value} {uid} · {view.name}"):
            into.container(view, role)
        hashes[uid] = view.hash
    if benchmark.reference_model_id in hashes:
        found = benchmark_hash(
            preparation=hashes[benchmark.preparation_id],
            reference_model=hashes[benchmark.reference_model_id],
            metrics=hashes[benchmark.metrics_id],
            demo_data=benchmark.demo_data_hash,
        )
        check_is_whole(benchmark.hash, found, f"benchmark {benchmark.id}")


def _manifest(
    session: Session, folder: Path, benchmark: BenchmarkView, dataset_id: int | None, maker: UserView
) -> Bundle:
    from medperf.bundles import layout

    made = layout.Bundle(
        server=session.server,
        made_at=datetime.now(UTC),
        made_by=layout.Maker(id=maker.id, username=maker.username),
        benchmark_id=benchmark.id,
        benchmark_name=benchmark.name,
        dataset_id=dataset_id,
        files=layout.described(folder),
    )
    (folder / layout.MANIFEST).write_text(made.text())
    return made


def _write(folder: Path, output: Path) -> None:
    from medperf.bundles.layout import copy_bundle, write_tar
    from medperf.files import partial_folder

    if output.suffix == ".tar":
        write_tar(folder, output)
        return
    with partial_folder(output) as partial:
        copy_bundle(folder, partial / "whole")
        (partial / "whole").rename(output)


def _tell(made: Bundle, folder: Path, output: Path) -> None:
    from medperf.bundles.layout import fingerprint

    click.echo(_described(made))
    click.echo(printable(f"Written to {output}"))
    click.echo(f"Fingerprint: {fingerprint(folder)}")
    click.echo("Next, at the site: medperf bundle import FILE, where the fingerprint must be the same.")


def _described(made: Bundle) -> str:
    from medperf.bundles.layout import stamp

    size = sum(file.size for file in made.files) / 1e6
    whose = "" if made.dataset_id is None else f" for dataset {made.dataset_id}"
    return printable(
        f"Benchmark {made.benchmark_id} ({made.benchmark_name}){whose}, as {made.made_by.username} saw it on"
        f" {made.server} at {stamp(made.made_at)}: {len(made.files)} files, {size:,.1f} MB"
    )
