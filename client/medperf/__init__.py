"""MedPerf's client: run medical AI benchmarks on a site's own data, where only scores leave.

What is exported here is imported when it is first used, so that `import medperf` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medperf.api import Gateway
    from medperf.assets import Assets
    from medperf.containers import LocalContainer, fetch_container
    from medperf.datasets import LocalDataset, find_dataset, local_datasets
    from medperf.demo_data import DemoData, unpack_demo_data
    from medperf.drafts import Draft
    from medperf.engines.sandbox import SandboxEngine
    from medperf.errors import ClientError
    from medperf.evaluation import Evaluated, Evaluation, evaluate
    from medperf.home import Home, server_url
    from medperf.identity import Identity, hash_folders
    from medperf.journal import Journal
    from medperf.manifest import Role
    from medperf.preparation import Description, prepare
    from medperf.results import LocalResult, find_result, local_results
    from medperf.tasks import Runner
    from medperf.trials import Parts, Trial, try_out

_EXPORTS = {
    "Assets": "assets",
    "ClientError": "errors",
    "DemoData": "demo_data",
    "Description": "preparation",
    "Draft": "drafts",
    "Evaluated": "evaluation",
    "Evaluation": "evaluation",
    "Gateway": "api",
    "Home": "home",
    "Identity": "identity",
    "Journal": "journal",
    "LocalContainer": "containers",
    "LocalDataset": "datasets",
    "LocalResult": "results",
    "Parts": "trials",
    "Role": "manifest",
    "Runner": "tasks",
    "SandboxEngine": "engines.sandbox",
    "Trial": "trials",
    "evaluate": "evaluation",
    "fetch_container": "containers",
    "find_dataset": "datasets",
    "find_result": "results",
    "hash_folders": "identity",
    "local_datasets": "datasets",
    "local_results": "results",
    "prepare": "preparation",
    "server_url": "home",
    "try_out": "trials",
    "unpack_demo_data": "demo_data",
}

__all__ = [
    "Assets",
    "ClientError",
    "DemoData",
    "Description",
    "Draft",
    "Evaluated",
    "Evaluation",
    "Gateway",
    "Home",
    "Identity",
    "Journal",
    "LocalContainer",
    "LocalDataset",
    "LocalResult",
    "Parts",
    "Role",
    "Runner",
    "SandboxEngine",
    "Trial",
    "evaluate",
    "fetch_container",
    "find_dataset",
    "find_result",
    "hash_folders",
    "local_datasets",
    "local_results",
    "prepare",
    "server_url",
    "try_out",
    "unpack_demo_data",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
