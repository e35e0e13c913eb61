"""`medperf-server events|verify|export|import`: what an operator does with the content of all services."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .compare import Difference
    from .verify import Compared, Report

# What a person reads at once; the rest is counted, and shown by --json.
DIFFERENCES_SHOWN = 20


@click.group()
def events() -> None:
    """What services make of each other's events."""


@events.command()
@click.option("--consumer", "name", required=True, metavar="NAME", help="Such as results.record_association.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def rebuild(name: str, yes: bool) -> None:
    """Make a consumer's copy anew from the logs of those who publish; all services may run meanwhile."""
    from services.composition import DEFINITIONS

    from .databases import beside_what_runs
    from .rebuild import count_copies, rebuild, rebuildable

    service, consumer = rebuildable(DEFINITIONS, name)
    with beside_what_runs() as everything:
        count = everything.run(count_copies(everything.databases[service], consumer))
        click.echo(f"This replaces what {service} knows by {name} ({count} things) by what the logs say.")
        _confirm("Do it?", yes=yes)
        done = everything.run(rebuild(everything.databases, service, consumer))
    click.echo(f"Rebuilt {name} from {done.events} events: {done.before} things before, {done.after} now.")
    if done.dropped:
        click.echo(f"Left out, since they were given up: {done.dropped}.")


@events.command()
@click.option(
    "--hours",
    required=True,
    type=click.IntRange(min=1),
    help="How old the oldest may be: since before the backup.",
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def resend(hours: int, yes: bool) -> None:
    """Send the last hours' events once more: after databases were restored, and the broker's queues are empty."""
    from .databases import beside_what_runs
    from .resend import HOURS_MOST, resend

    if hours > HOURS_MOST:
        raise _refusal(
            f"Consumers know for {HOURS_MOST} hours what they have handled; older events would tell people again.",
            f"Give at most --hours {HOURS_MOST}; for older copies: medperf-server events rebuild --consumer NAME",
        )
    with beside_what_runs() as everything:
        click.echo(f"This sends the events of the last {hours} hours again; what had its effect has none again.")
        _confirm("Do it?", yes=yes)
        counts = everything.run(resend(everything.databases, hours=hours))
    click.echo(f"To be sent again: {', '.join(f'{count} of {name}' for name, count in counts.items() if count)}.")


@click.command()
@click.option(
    "--wait",
    "seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0, 600),
    help="Seconds that what is on its way is given to come.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs: a JSON object.")
def verify(seconds: float, as_json: bool) -> None:
    """Compare every service's copies with their owners; exits with 1 where a person must look at something."""
    from services.composition import DEFINITIONS

    from .databases import beside_what_runs
    from .verify import verify

    with beside_what_runs() as everything:
        report = everything.run(verify(everything.databases, DEFINITIONS, settle_seconds=seconds))
    if as_json:
        click.echo(json.dumps({"agrees": report.agrees} | asdict(report), indent=2))
    else:
        for line in _told(report):
            click.echo(line)
    if not report.agrees:
        sys.exit(1)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def export(file: Path) -> None:
    """Write the whole content of a stopped embedded server into FILE, to be imported elsewhere."""
    from services.composition import DEFINITIONS

    from .archive import there_already
    from .databases import of_store_alone
    from .transfer import export

    file = file.absolute()
    if file.exists():
        raise there_already(file)
    with of_store_alone() as everything:
        assets = everything.assets or Path()
        manifest = everything.run(export(everything.databases, DEFINITIONS, assets=assets, file=file))
    click.echo(f"Exported {manifest.rows} rows and {len(manifest.assets)} asset files to {file}.")
    click.echo("It holds password hashes: keep it as safe as the store. Then: medperf-server import FILE")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--assets",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="FOLDER",
    help="Where asset files are given out from; an embedded store has its own.",
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def import_(file: Path, assets: Path | None, yes: bool) -> None:
    """Fill new, empty databases with what an export wrote. Nothing may run on them."""
    from services.composition import DEFINITIONS

    from .archive import opened
    from .databases import to_fill
    from .transfer import check_importable, import_assets, import_databases

    with opened(file) as brought, to_fill() as everything:
        manifest = brought.manifest
        folder = everything.assets or assets
        if manifest.assets and folder is None:
            raise _refusal(
                f"The archive holds {len(manifest.assets)} asset files, and it is not said where they belong.",
                "Name the folder that the gateway gives /assets out from: --assets FOLDER",
            )
        everything.run(check_importable(everything.databases, DEFINITIONS, brought))
        click.echo(f"An export of {manifest.made_at:%Y-%m-%d %H:%M} UTC, by version {manifest.made_by}:")
        for name, service in manifest.services.items():
            click.echo(f"  {name}: {sum(table.rows for table in service.tables.values())} rows")
        click.echo(f"  asset files: {len(manifest.assets)}")
        _confirm("Import it?", yes=yes)
        if folder is not None:
            import_assets(brought, folder)
        filled = everything.run(import_databases(everything.databases, DEFINITIONS, brought))
    click.echo(f"Imported: {', '.join(filled) or 'nothing, it was all there already'}.")
    click.echo("Compare everything: medperf-server verify")


def _told(report: Report) -> Iterator[str]:
    for compared in (*report.owners, *report.copies):
        yield _summary(compared)
        for difference in compared.differences[:DIFFERENCES_SHOWN]:
            yield f"    {_difference(difference)}"
        if len(compared.differences) > DIFFERENCES_SHOWN:
            yield f"    … and {len(compared.differences) - DIFFERENCES_SHOWN} more: --json"
    for fault in report.log_faults:
        yield f"logs: {fault}"
    for messages in report.messages:
        counts = ("waiting", "failed", "dead", "not_sent", "dropped")
        said = [
            f"{getattr(messages, count)} {count.replace('_', ' ')}" for count in counts if getattr(messages, count)
        ]
        if said:
            yield f"messages of {messages.service}: {', '.join(said)}"
        yield from (f"    {fault}" for fault in messages.faults)
    if report.agrees:
        yield "All services agree."
    else:
        yield "They do not agree. Messages: medperf-server dead-letters ls"
        yield "A copy is made anew: medperf-server events rebuild --consumer NAME"


def _summary(compared: Compared) -> str:
    """Such as `results.record_dataset: 12 things, 3 behind (3 of them waiting: see dead-letters ls)`."""
    if not compared.differences:
        return f"{compared.what}: {compared.things} things, no difference"
    kinds = _counted(str(each.kind) for each in compared.differences)
    reasons = _counted(each.reason for each in compared.differences if each.reason)
    why = f" ({reasons} of them: see medperf-server dead-letters ls)" if reasons else ""
    return f"{compared.what}: {compared.things} things, {kinds}{why}"


def _counted(names: Iterator[str]) -> str:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _difference(difference: Difference) -> str:
    kept = "nothing" if difference.version is None else f"version {difference.version}"
    owners = (
        "never told of" if difference.owners_version is None else f"its owner said {difference.owners_version}"
    )
    fields = f", {', '.join(difference.fields)}" if difference.fields else ""
    reason = f": {difference.reason}" if difference.reason else ""
    return f"{difference.thing} {difference.kind}: {kept}, {owners}{fields}{reason}"


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise _refusal("This must be confirmed, and there is no terminal to ask on.", "Add --yes.")
    click.confirm(question, abort=True)


def _refusal(message: str, hint: str) -> Exception:
    from services.operator_error import OperatorError

    return OperatorError(message, hint=hint)
