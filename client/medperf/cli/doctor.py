"""`medperf doctor`: looks at what everything else needs, and says what to do."""

from __future__ import annotations

from contextlib import suppress

import click

from medperf.terminal import printable

from .session import Session, pass_session
from .tables import as_json, json_option


@click.command()
@json_option
@pass_session
def doctor(session: Session, as_json_text: bool) -> None:
    """Look at this machine, its network and the server: what is well, what is not, and what to do.

    It runs a small container and asks the server who it is and who you are; it changes nothing.
    """
    from medperf.doctor import Level, every_check, examine
    from medperf.errors import ClientError, ProblemsFound

    if session.place.root.is_dir():
        # A folder that cannot be locked is looked at all the same, and what is wrong with it found.
        with suppress(ClientError, OSError):
            _ = session.home
    examined = []
    for one in examine(every_check(session.place, lambda: session.network)):
        examined.append(one)
        if not as_json_text:
            click.echo(_line(one.finding.level, one.name, one.finding.found, one.finding.advice))
    problems = [one for one in examined if one.finding.level is Level.PROBLEM]
    if as_json_text:
        click.echo(
            as_json(
                {
                    "has_problems": bool(problems),
                    "checks": [
                        {
                            "name": one.name,
                            "level": one.finding.level.value,
                            "found": one.finding.found,
                            "advice": one.finding.advice,
                        }
                        for one in examined
                    ],
                }
            )
        )
    if problems:
        names = ", ".join(one.name for one in problems)
        raise ProblemsFound(
            f"{len(problems)} of {len(examined)} checks found a problem: {names}.",
            hint="What to do about each stands beside it; then run `medperf doctor` again.",
        )


def _line(level: str, name: str, found: str, advice: str) -> str:
    """A check's line; what to do stands under it, where something is to be done."""
    line = f"{level:<8} {name}: {_indented(found)}"
    return f"{line}\n{'':9}What to do: {_indented(advice)}" if advice else line


def _indented(text: str) -> str:
    return printable(text).replace("\n", f"\n{'':9}")
