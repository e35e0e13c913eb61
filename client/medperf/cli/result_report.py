"""`medperf result report`: a local result as one page, to read, print and pass on."""

from __future__ import annotations

from pathlib import Path

import click

from medperf.terminal import printable

from .listing import tell_left_out
from .prompts import confirm, yes_option
from .session import Session, pass_session


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
    from medperf.containers import known_name
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
    names = {one.model_id: known_name(session.home, one.evaluation.model_hash) for one in (found, *beside)}
    page = report_page(found, beside, names=names, not_comparable=not_comparable)
    write_atomically(file, page)
    click.echo(printable(f"Written: {file.absolute()}"))
    click.echo("It holds the scores, and opens in any browser. Whoever you give it to sees them.")
