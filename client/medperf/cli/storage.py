"""`medperf storage`: where the local folder of a server lies, what takes its space, and another disk for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from .listing import Column, print_list, silent_yes_option
from .prompts import confirm, yes_option
from .session import Session, pass_session
from .tables import as_json, json_option


@click.group(no_args_is_help=True)
def storage() -> None:
    """Where the local folder lies, how large what is in it is, and how to move it to another disk."""


@storage.command()
@json_option
@silent_yes_option
@pass_session
def ls(session: Session, as_json_text: bool) -> None:
    """List what takes the space of this server's local folder. Asks no server."""
    from medperf.storage import Part, parts_of

    home = session.home
    parts = parts_of(home)
    free = shutil.disk_usage(home.root).free if home.root.is_dir() else None
    if as_json_text:
        shown = [{"name": part.name, "what": part.what, "size_bytes": part.size_bytes} for part in parts]
        click.echo(as_json({"folder": str(home.root), "free_bytes": free, "parts": shown}))
        return
    columns: list[Column[Part]] = [
        Column("Folder", lambda part: part.name),
        Column("What", lambda part: part.what),
        Column("Size", lambda part: f"{part.size_bytes / 1e6:,.1f} MB"),
    ]
    print_list(parts, columns, as_json_text=False, if_empty="Nothing.")
    click.echo(f"In {home.root}" + ("." if free is None else f"; {free / 1e9:,.1f} GB are free on its disk."))
    click.echo("`medperf cache prune` removes what can be had again.", err=True)


@storage.command()
@click.argument("into", type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True))
@yes_option
@pass_session
def mv(session: Session, into: Path, yes: bool) -> None:
    """Move this server's local folder, and all in it, into the folder INTO; a link is left in its place."""
    from medperf.storage import check_move, move

    from .progress import Progress

    home = session.home
    target = check_move(home, into)
    confirm(f"Move {home.root} to {target}? Commands find it there by a link.", yes=yes)
    progress = Progress(1)
    with session.alone(), progress.step(f"moving {home.root}"):
        _, left = move(home, into, on_copied=lambda done: progress.note(f"{done / 1e6:,.1f} MB copied"))
    click.echo(f"The local folder is now {target}")
    if left is not None:
        click.echo(f"What was there before could not be removed whole; nothing uses it any more: {left}", err=True)
