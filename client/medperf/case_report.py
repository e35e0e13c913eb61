"""A preparation's report, case by case: how many cases are at which stage, read while its container writes it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medperf import safe_yaml
from medperf.drawings import one_line
from medperf.engines.outputs import read_output
from medperf.errors import ContainerFailed

# A line of text for each of some ten thousand cases; it is parsed anew at each change.
LIMIT_BYTES = 8 * 1024**2
# More stages than this are no stages: the rest is counted together.
STAGES_MOST = 32
# The columns that count; a report may have others, such as `comment` and `data_path`, which nobody looks at here.
_STATUS, _STATUS_NAME = "status", "status_name"
_NAME_CHARACTERS_MOST = 40
_WHAT = "The report that the container wrote"
_HINT = "Tell the container's owner: docs/containers.md says what a report is."


@dataclass(frozen=True)
class Stage:
    """How many cases are at a stage: its number, where it has one, and its name, harmless to a terminal."""

    number: float | None
    name: str
    cases: int

    @property
    def shown(self) -> str:
        """Its number and its name."""
        return " ".join(word for word in ("" if self.number is None else f"{self.number:g}", self.name) if word)


@dataclass(frozen=True)
class CaseReport:
    """The stages of a preparation, in their order, and of how many cases in all."""

    stages: tuple[Stage, ...]
    cases: int

    def __str__(self) -> str:
        counts = ", ".join(f"{stage.cases:,} at {stage.shown}" for stage in self.stages)
        return f"{self.cases:,} case{'s' if self.cases != 1 else ''}: {counts}"


def read_case_report(file: Path, *, inside: Path) -> CaseReport | None:
    """The report in a YAML or JSON file under `inside`, following no link; None where nothing is in it yet.

    It maps columns to cases to values, as tables of data are written (`status: {case-1: 2}`), or cases to columns
    (`case-1: {status: 2}`). ContainerFailed for anything else.
    """
    content = read_output(file, inside=inside, limit_bytes=LIMIT_BYTES)
    value = safe_yaml.load(content, what=_WHAT, limit_bytes=LIMIT_BYTES, error=ContainerFailed, hint=_HINT)
    if value is None or value == {}:
        return None
    if not isinstance(value, dict):
        raise ContainerFailed(f"{_WHAT} is not a mapping.", hint=_HINT)
    rows = list(_rows(value))
    if not rows:
        return None
    return _counted(rows)


def _rows(value: Mapping[str, object]) -> Iterable[tuple[object, object]]:
    """The status and the status's name of each case."""
    if _STATUS in value or _STATUS_NAME in value:
        columns = [_column(value.get(name, {})) for name in (_STATUS, _STATUS_NAME)]
        cases = dict.fromkeys(case for column in columns for case in column)
        return ((columns[0].get(case), columns[1].get(case)) for case in cases)
    return (
        (row.get(_STATUS), row.get(_STATUS_NAME)) if isinstance(row, dict) else (row, None)
        for row in value.values()
    )


def _column(column: object) -> Mapping[str, object]:
    if not isinstance(column, dict):
        raise ContainerFailed(f"{_WHAT} has a {_STATUS} that is not of cases.", hint=_HINT)
    return column


def _counted(rows: list[tuple[object, object]]) -> CaseReport:
    counts: dict[tuple[float | None, str], int] = {}
    names: dict[float, str] = {}
    for status, status_name in rows:
        number = _number(status)
        said = status_name if status_name is not None or number is not None else status
        name = "" if said is None else one_line(str(said), _NAME_CHARACTERS_MOST)
        if number is not None:
            # One stage for a number, whatever else its cases say.
            name = names.setdefault(number, name)
        counts[number, name] = counts.get((number, name), 0) + 1
    stages = [Stage(number, name or _unnamed(number), cases) for (number, name), cases in counts.items()]
    # What went wrong in a stage (-2) stands beside it (2); stages without a number come last, as they were found.
    stages.sort(key=lambda stage: (stage.number is None, abs(stage.number or 0), stage.number or 0))
    if len(stages) > STAGES_MOST:
        others = sum(stage.cases for stage in stages[STAGES_MOST - 1 :])
        stages = [*stages[: STAGES_MOST - 1], Stage(None, "other stages", others)]
    return CaseReport(tuple(stages), len(rows))


def _unnamed(number: float | None) -> str:
    return "" if number is not None else "no status"


def _number(status: object) -> float | None:
    """A status that is a number; -1.1 is one, as pipelines number what went wrong in stage 1."""
    if isinstance(status, bool) or not isinstance(status, int | float):
        return None
    number = float(status)
    return number if math.isfinite(number) else None
