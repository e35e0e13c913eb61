"""`medperf result report`: a local result as one page, to read, print and pass on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from medperf.terminal import printable

from .listing import tell_left_out
from .prompts import confirm, yes_option
from .session import Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from medperf.home import Home
    from medperf.results import LocalResult


@click.command()
@click.argument("result_uid")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the page is written; else medperf-RESULT_UID.html here.",
)
@yes_option
@pass_session
def report(session: Session, result_uid: str, output: Path | None, yes: bool) -> None:
    """Write a local result, such as b1m4d1, as one HTML page: its scores, how it was run, the hashes of its parts.

    Other models' local results of the same benchmark and dataset stand beside it. Nothing is sent.
    """
    from medperf.errors import UsageError
    from medperf.files import write_atomically
    from medperf.report_page import comparable, report_page
    from medperf.results import find_result, local_results

    found = find_result(session.home, result_uid)
    file = output or Path(f"medperf-{found.name}.html")
    if not file.parent.is_dir():
        raise UsageError(f"There is no folder {file.parent}.", hint="Make it, or give another --output.")
    if file.is_symlink() or file.exists():
        confirm(f"Replace {printable(str(file))}?", yes=yes)
    others = local_results(session.home, on_damaged=tell_left_out)
    beside, not_comparable = comparable(found, others)
    names = _names(session.home, [found, *beside])
    page = report_page(found, beside, names=names, not_comparable=not_comparable)
    write_atomically(file, page)
    click.echo(printable(f"Written: {file.absolute()}"))
    click.echo("It holds the scores, and opens in any browser. Whoever you give it to sees them.")


def _names(home: Home, results: Iterable[LocalResult]) -> dict[int, str]:
    """What the models' manifests that are on this machine call them, by the models' server UIDs."""
    from medperf.errors import BadManifest
    from medperf.manifest import parse_manifest

    names = {}
    for one in results:
        file = home.containers / one.evaluation.model_hash / "mlcube.yaml"
        try:
            manifest = parse_manifest(file.read_text(encoding="utf-8"), what=str(file))
        except (OSError, UnicodeError, BadManifest):
            continue  # a name is a kindness: the UID and the hash say which model it is
        names[one.model_id] = manifest.name
    return names
