"""What is in a person's local folder, without what differs from one run of the same commands to the next."""

from __future__ import annotations

import re

from medperf.datasets import local_datasets
from medperf.evaluation import find_evaluation
from medperf.home import Home
from medperf.journal import Journal, RunState

_TIMES = re.compile(r"\d{4}-\d\d-\d\d[T ][0-9:.]+(Z|\+00:00)?")


def picture(home: Home) -> dict[str, str]:
    """Path to content, without locks, logs, tokens, versions seen and times."""
    if not home.root.is_dir():
        return {}
    shown = {}
    for path in sorted(home.root.rglob("*")):
        name = str(path.relative_to(home.root))
        if path.is_file() and not _is_passing(name):
            text = path.read_text(errors="replace") if path.stat().st_size < 100_000 else ""
            shown[name] = _TIMES.sub("TIME", text)
    return shown


def check_whole(home: Home) -> None:
    """All that is kept can be trusted, nothing lies about, and every run has an end and a cause."""
    if not home.root.is_dir():
        return
    assert list(home.root.rglob(".*.partial-*")) == []
    for dataset in local_datasets(home):
        dataset.verify()
    for folder in home.results.iterdir():
        if folder.name != "names":
            assert find_evaluation(home, folder.name) is not None, folder
    for run in home.runs.iterdir():
        assert [entry for entry in run.iterdir() if entry.name != "task.log"] == []
    for record in Journal(home.journal).runs():
        assert record.state not in (RunState.QUEUED, RunState.RUNNING), record
        assert record.state is RunState.DONE or record.cause, record


def _is_passing(name: str) -> bool:
    return (
        name.startswith(("runs/", "journal.sqlite", "seen.", "credentials."))
        or ".locks/" in name
        or name.endswith(".lock")
    )
