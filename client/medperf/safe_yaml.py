"""YAML that comes from elsewhere: one loader with a bound on everything, one writer for what a person reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from medperf.errors import BadManifest, ClientError

DEFAULT_LIMIT_BYTES = 1024 * 1024
# Deep enough for any manifest or metrics file seen; far below Python's recursion limit, which whoever walks
# the value meets next.
MAX_DEPTH = 50
# A document of more keys and items is no manifest: nobody asks for their lines, and each costs some 300 bytes.
LINES_MOST = 20_000
# Python writes no whole number of more than 4,300 digits as text, and floats end at 309.
_NUMBER_CHARACTERS_MOST = 400
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(_TAG + name for name in ("null", "bool", "int", "float"))
# From a key's path in the document, names and places in lists, to the line it stands on, counted from 1.
Lines = Mapping[tuple[str | int, ...], int]
_WRITTEN_TAGS = frozenset(_TAG + name for name in ("str", "seq", "map")) | _PLAIN_TAGS | {"!", None}


def load(
    text: str | bytes,
    *,
    what: str,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
    error: type[ClientError] = BadManifest,
    hint: str | None = None,
) -> Any:
    """The value of one YAML document: dicts with text keys, lists, text, numbers, booleans and None.

    `what` names the document in errors ("the manifest of container 3"); `error` is the class raised, and
    `hint` its hint, where who reads it is not who can correct the document.
    Refused: more than `limit_bytes` bytes, more than MAX_DEPTH levels, anchors and aliases, tags of other
    types, keys that are not text or come twice, more than one document. Dates stay text as written; NaN and
    infinities stay floats, for the caller to judge.
    """
    return load_with_lines(text, what=what, limit_bytes=limit_bytes, error=error, hint=hint)[0]


def load_with_lines(
    text: str | bytes,
    *,
    what: str,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
    error: type[ClientError] = BadManifest,
    hint: str | None = None,
) -> tuple[Any, Lines]:
    """As `load`, and the line of each key and of each item of a list, for the first LINES_MOST of them."""
    try:
        return _read(text, what, limit_bytes, error)
    except ClientError as refused:
        if hint is None:
            raise
        raise error(str(refused), hint=hint) from refused


def _read(text: str | bytes, what: str, limit_bytes: int, error: type[ClientError]) -> tuple[Any, Lines]:
    try:
        reader = _Reader(what, error)
        return reader.read(_decoded(text, what, limit_bytes, error)), reader.lines
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark or broken.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise error(
            f"{what} is not valid YAML{where}: {broken.problem or broken.context}",
            hint="Correct that line; every file must be one YAML document in UTF-8.",
        ) from broken
    except (yaml.YAMLError, UnicodeError) as broken:
        raise error(
            f"{what} is not valid YAML: {str(broken).splitlines()[0]}",
            hint="Save it as UTF-8 text without control characters.",
        ) from broken


def dump(value: Any) -> str:
    """`value` as YAML for a person: keys in their own order, unicode as it is, no aliases."""
    return yaml.dump(value, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=100)


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _decoded(text: str | bytes, what: str, limit_bytes: int, error: type[ClientError]) -> str:
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8"))
    if size > limit_bytes:
        raise error(
            f"{what} has {size:,} bytes; the limit is {limit_bytes:,}",
            hint="Make it smaller: it should hold settings or scores, not data.",
        )
    return text.decode("utf-8-sig") if isinstance(text, bytes) else text


class _Reader:
    """Builds the value from parser events with a stack of its own: no recursion, and nothing to expand."""

    def __init__(self, what: str, error: type[ClientError]) -> None:
        self.what = what
        self.error = error
        self.open: list[_Collection] = []
        self.documents = 0
        self.root: Any = None
        self.lines: dict[tuple[str | int, ...], int] = {}
        # PyYAML's own rules for what is a number or a boolean; never fed with text.
        self.scalars: Any = yaml.SafeLoader("")

    def read(self, text: str) -> Any:
        # libyaml gives the same events as PyYAML's own parser, 20 times as fast.
        parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        for event in yaml.parse(text, Loader=parser):
            self._take(event)
        return self.root

    def _take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise self._refusal(event, "a second document begins", "Keep one document in a file.")
        elif isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise self._refusal(event, "it uses an anchor or alias (& or *)", "Write the value out each time.")
        elif isinstance(event, yaml.ScalarEvent):
            self._note_item(event)
            self._add(self._scalar(event), event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._check_tag(event.tag, event)
            self._note_item(event)
            if len(self.open) >= MAX_DEPTH:
                raise self._refusal(event, f"it is nested deeper than {MAX_DEPTH} levels", "Flatten it.")
            self.open.append(_Collection({} if isinstance(event, yaml.MappingStartEvent) else []))
        elif isinstance(event, yaml.CollectionEndEvent):
            self._add(self.open.pop().value, event)

    def _add(self, value: Any, event: yaml.Event) -> None:
        if not self.open:
            self.root = value
            return
        inner = self.open[-1]
        if isinstance(inner.value, list):
            inner.value.append(value)
        elif inner.key is not None:
            inner.value[inner.key] = value
            inner.key = None
        elif not isinstance(value, str):
            raise self._refusal(event, f"the key {value!r:.60} is not text", "Put the key in quotes.")
        elif value in inner.value:
            raise self._refusal(event, f"the key {value!r:.60} comes twice", "Keep one of the two.")
        else:
            inner.key = value
            self._note(event)

    def _note_item(self, event: yaml.Event) -> None:
        if self.open and isinstance(self.open[-1].value, list):
            self._note(event)

    def _note(self, event: yaml.Event) -> None:
        if len(self.lines) < LINES_MOST:
            self.lines[tuple(collection.place for collection in self.open)] = _line(event)

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        self._check_tag(event.tag, event)
        tag = event.tag
        if tag in (None, "!"):
            plain, quoted = event.implicit
            tag = self.scalars.resolve(yaml.ScalarNode, event.value, (plain and tag is None, quoted))
        if tag not in _PLAIN_TAGS:
            return event.value
        try:
            if len(event.value) > _NUMBER_CHARACTERS_MOST:
                raise OverflowError("nobody can write it")
            return self.scalars.construct_object(yaml.ScalarNode(tag, event.value))
        except (ValueError, OverflowError) as broken:
            fault = f"{event.value[:40]!r} is not a number that can be read"
            raise self._refusal(event, fault, "Write a plain number, or put it in quotes.") from broken

    def _check_tag(self, tag: str | None, event: yaml.Event) -> None:
        if tag not in _WRITTEN_TAGS:
            raise self._refusal(event, f"it uses the tag {tag!r:.60}", "Remove the tag.")

    def _refusal(self, event: yaml.Event, fault: str, hint: str) -> ClientError:
        return self.error(f"{self.what}, line {_line(event)}: {fault}", hint=hint)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


class _Collection:
    def __init__(self, value: dict[str, Any] | list[Any]) -> None:
        self.value: Any = value
        self.key: str | None = None

    @property
    def place(self) -> str | int:
        """Where what is read now stands in it."""
        return len(self.value) if isinstance(self.value, list) else (self.key or "")
