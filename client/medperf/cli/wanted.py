"""Which of a benchmark's models a person wants run: named by options or in a file, else all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import click

from medperf.errors import UsageError

_FILE_BYTES_MOST = 1024**2
_SEPARATORS = re.compile(r"[\s,]+")
# As long as the server's longest.
_MODEL_UID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


class ModelUids(click.ParamType[tuple[int, ...]]):
    """Models' UIDs, with commas between them."""

    name = "UID[,UID…]"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The UIDs in the order in which they stand."""
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in value.split(",")]
        for word in words:
            if not _MODEL_UID.fullmatch(word):
                self.fail(
                    f"{word!r:.40} is no model's UID; give UIDs with commas between them, such as 2,4", param, ctx
                )
        return tuple(map(int, words))


def wanted_models(due: Sequence[int], named: Iterable[Sequence[int]], file: Path | None) -> list[int]:
    """The models to run, in the order in which they were named; all that are due where none is named.

    UsageError for one that is not due, and for a file that names none.
    """
    in_file = () if file is None else _read(file)
    chosen = list(dict.fromkeys((*chain.from_iterable(named), *in_file)))
    for model_id in chosen:
        if model_id not in due:
            raise UsageError(
                f"Model {model_id} is not one that this benchmark wants a result of.",
                hint=f"Name some of {', '.join(map(str, due))}, or none for all of them.",
            )
    return chosen or list(due)


def _read(file: Path) -> list[int]:
    """The UIDs in a file, separated by lines, spaces or commas; what follows a # is a comment."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_FILE_BYTES_MOST + 1)
            text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UsageError(
            f"{file} cannot be read: {why}.", hint="Give a file with a model's UID on each line."
        ) from error
    if len(content) > _FILE_BYTES_MOST:
        raise UsageError(f"{file} is larger than 1 MiB.", hint="Give a file with a model's UID on each line.")
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        for word in _SEPARATORS.split(line.partition("#")[0].strip()):
            if word and not _MODEL_UID.fullmatch(word):
                raise UsageError(
                    f"{file}, line {number}: {word!r:.40} is no model's UID.", hint="Correct the line."
                )
            if word:
                found.append(int(word))
    if not found:
        raise UsageError(f"{file} names no model.", hint="Write a model's UID on each line.")
    return found
