"""Runs of other commands, as a journal holds them."""

from __future__ import annotations

from typing import Any

from medperf.journal import Journal, Run


def open_run(journal: Journal, **changed: Any) -> Run:
    """A run of a model that was recorded and has not begun; what a test is about is `changed`."""
    facts: dict[str, Any] = {
        "purpose": "benchmark run",
        "container_hash": "0" * 64,
        "container_name": "model",
        "task": "infer",
        "dataset_uid": None,
        "engine": "sandbox",
        "limits": {},
    }
    return journal.open_run(**facts | changed)
