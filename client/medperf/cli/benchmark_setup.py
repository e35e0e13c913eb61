"""`medperf benchmark submit`, `set-operational`, `update`, and an administrator's `approve` and `reject`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medperf.errors import UsageError
from medperf.terminal import printable

from .changing import UID, check_address, validity_option
from .listing import silent_yes_option
from .prompts import yes_option
from .session import Session, pass_session

if TYPE_CHECKING:
    from medperf.assets import Assets
    from medperf_contracts.registry import NewBenchmark

    from .progress import Progress

# What a benchmark's file says, and what it is called where it is sent.
_KEYS = {
    "name": "name",
    "description": "description",
    "docs_url": "docs_url",
    "preparation": "preparation_id",
    "reference_model": "reference_model_id",
    "metrics": "metrics_id",
    "demo_data_url": "demo_data_url",
    "demo_data_hash": "demo_data_hash",
    "public_scores": "public_scores",
}
_ROLES = {"preparation": "preparation", "reference_model": "model", "metrics": "metrics"}
_FILE_BYTES_MOST = 64 * 1024


@click.command()
@click.argument("file", metavar="FILE.yaml", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@yes_option
@pass_session
def submit(session: Session, file: Path, yes: bool) -> None:
    """Register a benchmark. What its file says is checked, printed, you are asked, it is sent.

    Keys: name, preparation, reference_model, metrics (UIDs of containers), and if you like description, docs_url,
    demo_data_url, demo_data_hash, public_scores.
    """
    from medperf_contracts.registry import BenchmarkView

    from .changing import downloads, register
    from .progress import Progress

    said = _read(file)
    url, written_hash = said.get("demo_data_url"), said.get("demo_data_hash")
    if written_hash is not None and url is None:
        raise UsageError(
            f"{file} says demo_data_hash, but not demo_data_url.", hint="Say where the demo data is, or neither."
        )
    if isinstance(url, str):
        check_address(url, "demo_data_url")
    body = _body(said, None if url is None else written_hash or "0" * 64)
    session.progress = progress = Progress(len(_ROLES) + (0 if url is None else 1))
    assets = downloads(session, progress)
    for key, role in _ROLES.items():
        _check_container(session, progress, assets, said[key], key, role)
    if url is None:
        click.echo("It has no demo data: models will ask to join without a compatibility test.", err=True)
    else:
        body = _body(said, _demo_data_hash(session, progress, assets, str(url), written_hash))
    seen = [f"container/{uid}" for uid in dict.fromkeys(said[key] for key in _ROLES)]
    made = register(session, "benchmark", body, BenchmarkView, yes=yes, seen=seen)
    if made.state == "DEVELOPMENT":
        click.echo(f"Next, try it (medperf test run), then: medperf benchmark set-operational {made.id}")


def _read(file: Path) -> dict[str, Any]:
    """What the file says, with every key known and none of the needed ones missing."""
    from medperf import safe_yaml

    with file.open("rb") as opened:
        text = opened.read(_FILE_BYTES_MOST + 1)
    said = safe_yaml.load(text, what=str(file), limit_bytes=_FILE_BYTES_MOST, error=UsageError)
    known = f"A benchmark's file may say: {', '.join(_KEYS)}."
    if not isinstance(said, dict):
        raise UsageError(f"{file} is not a mapping of keys to values.", hint=known)
    unknown = [key for key in said if key not in _KEYS]
    if unknown:
        raise UsageError(f"{file} holds unknown keys: {', '.join(unknown)}.", hint=known)
    said = {key: value for key, value in said.items() if value is not None}
    missing = [key for key in ("name", *_ROLES) if key not in said]
    if missing:
        raise UsageError(f"{file} does not say {', '.join(missing)}.", hint=known)
    for key in _ROLES:
        if not isinstance(said[key], int) or isinstance(said[key], bool):
            raise UsageError(
                f"{file}: {key} must be a container's UID, such as 3.", hint="`medperf container ls` shows them."
            )
    return said


def _body(said: dict[str, Any], demo_data_hash: str | None) -> NewBenchmark:
    from medperf.bodies import checked_input
    from medperf_contracts.registry import NewBenchmark

    sent = {_KEYS[key]: value for key, value in said.items()}
    if demo_data_hash is not None:
        sent["demo_data_hash"] = demo_data_hash
    with checked_input():
        return NewBenchmark.model_validate(sent)


def _check_container(
    session: Session, progress: Progress, assets: Assets, uid: int, key: str, role_name: str
) -> None:
    """Bring a container here as every site will, and warn of one that is not in operation yet."""
    from medperf.containers import fetch_container
    from medperf.manifest import Role
    from medperf_contracts.registry import ContainerView
    from medperf_contracts.values import State

    with progress.step(f"{key}: container {uid}"):
        registered = session.gateway.get(f"/containers/{uid}", ContainerView, seen=[f"container/{uid}"])
        fetch_container(registered, role=Role(role_name), home=session.home, assets=assets)
        if registered.state is not State.OPERATION:
            progress.line(f"{registered.name} is in development: the benchmark waits for it to be in operation")


def _demo_data_hash(
    session: Session, progress: Progress, assets: Assets, url: str, written_hash: str | None
) -> str:
    """The demo data's hash, once it was fetched and can be used."""
    from medperf.demo_data import unpack_demo_data
    from medperf.scratch import scratch_folder

    from .changing import check_same, fetched_new

    archive, found = fetched_new(assets, url, progress.step)
    check_same(url, found, written_hash, "demo_data_hash")
    with scratch_folder(session.home) as place:
        unpack_demo_data(archive, place / "demo_data")
    return found


@click.command("set-operational")
@click.argument("benchmark_uid", type=UID)
@yes_option
@pass_session
def set_operational(session: Session, benchmark_uid: int, yes: bool) -> None:
    """Put your benchmark before the administrators; its containers must be in operation."""
    from medperf_contracts.registry import BenchmarkView

    from . import changing

    meaning = "In OPERATION it is put before the administrators; once one approves it, everybody sees it."
    changed = changing.set_operational(
        session, "benchmark", benchmark_uid, BenchmarkView, meaning=meaning, yes=yes
    )
    if changed is not None:
        click.echo(
            "Next, an administrator decides. The server does not tell them: ask one; `medperf benchmark ls"
            " --pending` shows them what waits. `medperf notifications ls` tells you what they decided."
        )


@click.command()
@click.argument("benchmark_uid", type=UID)
@silent_yes_option
@pass_session
def approve(session: Session, benchmark_uid: int) -> None:
    """Approve a benchmark, as an administrator: everybody sees it, and datasets and models may ask to join."""
    _decide(session, benchmark_uid, "approve")


@click.command()
@click.argument("benchmark_uid", type=UID)
@silent_yes_option
@pass_session
def reject(session: Session, benchmark_uid: int) -> None:
    """Reject a benchmark, as an administrator. It can be approved later."""
    _decide(session, benchmark_uid, "reject")


def _decide(session: Session, benchmark_uid: int, decision: str) -> None:
    from medperf_contracts.registry import BenchmarkView

    path = f"/benchmarks/{benchmark_uid}/{decision}"
    decided = session.gateway.post(path, None, BenchmarkView, seen=[f"benchmark/{benchmark_uid}"])
    click.echo(
        printable(f"Benchmark {decided.id} ({decided.name}) of {decided.owner_name} is {decided.approval}.")
    )


@click.command()
@click.argument("benchmark_uid", type=UID)
@click.option("--description", help="What it is.")
@click.option("--docs_url", metavar="URL", help="Where it is described; '' for nowhere.")
@click.option("--demo_data", "demo_data_url", metavar="URL", help="Where the same demo data is now.")
@validity_option
@yes_option
@pass_session
def update(
    session: Session,
    benchmark_uid: int,
    description: str | None,
    docs_url: str | None,
    demo_data_url: str | None,
    is_valid: bool | None,
    yes: bool,
) -> None:
    """Change what may change of your benchmark in any state; what it measures never changes."""
    from medperf_contracts.registry import BenchmarkChanges, BenchmarkView

    from . import changing
    from .progress import Progress

    if demo_data_url is not None:
        check_address(demo_data_url, "--demo_data")

    def check(thing: BenchmarkView) -> None:
        if demo_data_url is not None and thing.demo_data_hash is not None:
            session.progress = progress = Progress(1)
            assets = changing.downloads(session, progress)
            _, found = changing.fetched_new(assets, demo_data_url, progress.step)
            changing.check_same(demo_data_url, found, thing.demo_data_hash, "its demo data")

    given = changing.what_was_given(description=description, demo_data_url=demo_data_url, is_valid=is_valid)
    if docs_url is not None:
        given["docs_url"] = docs_url or None
    changing.update(
        session, "benchmark", benchmark_uid, BenchmarkView, BenchmarkChanges, given, yes=yes, check=check
    )
