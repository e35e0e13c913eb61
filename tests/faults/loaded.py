"""Loads all that a command of `medperf` may need, so that a fork of this process begins at once."""

from __future__ import annotations

import importlib
import pkgutil


def load_everything() -> None:
    """Import every module of the client, and what those import late."""
    import medperf

    for module in pkgutil.walk_packages(medperf.__path__, "medperf."):
        if module.name != "medperf.engines.launch" and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    importlib.import_module("httpx")
    importlib.import_module("yaml")
