"""What is printed: tables, YAML, JSON; never a character that paints the terminal."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from medperf.terminal import printable

if TYPE_CHECKING:
    from pydantic import BaseModel

P = ParamSpec("P")
R = TypeVar("R")

# What containers report; null elsewhere means that there is none.
_REPORTS = frozenset({"metrics", "statistics"})
# Long and strange enough that no text of anybody's holds it; no character that YAML would quote.
_UNDEFINED = "medperf-undefined-4f1c9a7e"
_HIDDEN = "medperf-hidden-4f1c9a7e"

# A sentence in a cell is broken into lines rather than made to run over the terminal's edge.
_CELL_WIDTH_MOST = 70


def print_table(rows: Iterable[Sequence[object]], headers: Sequence[str], *, if_empty: str = "") -> None:
    """Print rows under their headers: whole numbers to the right, all else to the left.

    Without rows, `if_empty` is printed in the table's place, if it is given.
    """
    from tabulate import tabulate

    cells = [list(row) for row in rows]
    if not cells and if_empty:
        click.echo(if_empty)
        return
    columns = list(zip(*cells, strict=True)) if cells else [() for _ in headers]
    table = tabulate(
        [[_cell(value) for value in row] for row in cells],
        list(headers),
        tablefmt="simple",
        # Else a name such as 1e5 would be shown as a number.
        disable_numparse=True,
        colalign=["right" if _are_numbers(column) else "left" for column in columns] if cells else None,
    )
    click.echo(table)


def as_yaml(thing: Any, *, hidden: frozenset[str] = frozenset()) -> str:
    """A body, a view or a plain value as YAML, keys in their own order, printable.

    A number that a container left undefined is null, and says so in a comment: read back it is what it was. So
    does a null of the thing's own keys `hidden`: the server has it and does not show it to this person.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes a text of several lines as a block, as a person would."""

    def lines(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    Dumper.add_representer(str, lines)
    Dumper.add_representer(_Undefined, lambda dumper, _: lines(dumper, _UNDEFINED))
    Dumper.add_representer(_Hidden, lambda dumper, _: lines(dumper, _HIDDEN))
    whole = plain(thing)
    unseen = {key: _Hidden() for key in hidden if isinstance(whole, dict) and whole.get(key, "") is None}
    marked = _marked(whole, is_reported=False) | unseen if unseen else _marked(whole, is_reported=False)
    text: str = yaml.dump(marked, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    said = text.replace(_UNDEFINED, "null  # undefined").replace(_HIDDEN, "null  # not shown to you")
    return printable(said)


class _Undefined:
    """Stands for a null among what a container reported."""


class _Hidden:
    """Stands for a null in the place of what a person may not see."""


def _marked(value: Any, *, is_reported: bool) -> Any:
    """The same with each null below a key of reports marked."""
    if isinstance(value, dict):
        return {key: _marked(inner, is_reported=is_reported or key in _REPORTS) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(inner, is_reported=is_reported) for inner in value]
    return _Undefined() if value is None and is_reported else value


def as_json(thing: Any) -> str:
    """A view or a plain value as JSON, in ASCII, so that nothing in it paints a terminal."""
    return json.dumps(plain(thing), indent=2)


def print_view(
    view: BaseModel | Mapping[str, object], *, as_json_text: bool, hidden: frozenset[str] = frozenset()
) -> None:
    """Print one thing: YAML for people, JSON for programs; see `as_yaml` for `hidden`."""
    click.echo(as_json(view) if as_json_text else as_yaml(view, hidden=hidden), nl=as_json_text)


def json_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--json`, given to the command as `as_json_text`."""
    return click.option("--json", "as_json_text", is_flag=True, help="Print JSON, for programs.")(command)


def plain(thing: Any) -> Any:
    """A body or view as dictionaries, lists and plain values; anything else as it is."""
    return thing.model_dump(mode="json") if hasattr(thing, "model_dump") else thing


def _cell(value: object) -> str:
    if value is None:
        return ""
    return textwrap.fill(printable(str(value)), _CELL_WIDTH_MOST, break_on_hyphens=False)


def _are_numbers(column: Sequence[object]) -> bool:
    numbers = [value for value in column if value is not None]
    return bool(numbers) and all(isinstance(value, int) and not isinstance(value, bool) for value in numbers)
