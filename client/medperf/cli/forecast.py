"""What is known of a benchmark run before it begins: how much is to be done, how long it took before, space."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medperf.containers import LocalContainer
    from medperf.journal import Journal

_TASK = "infer"


def forecast(journal: Journal, folder: Path, to_run: Sequence[LocalContainer], *, done: int) -> str:
    """One line for a person; `done` models need not run. Only models that ran well here before have a time."""
    took = [journal.last_took(model.hash, _TASK) for model in to_run]
    known = [one for one in took if one is not None]
    many = f"{len(to_run)} to run" + (f", {done} already done" if done else "")
    if known:
        of = "they" if len(known) == len(to_run) else f"{len(known)} of them"
        many += f"; {of} took {_in_words(sum(known, timedelta()))} when last run here"
    return f"Models: {many}. Free for what they write: {shutil.disk_usage(folder).free / 1e9:,.1f} GB."


def _in_words(time: timedelta) -> str:
    seconds = round(time.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
