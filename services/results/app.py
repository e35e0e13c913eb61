"""The results service, composed."""

from __future__ import annotations

from medperf_contracts.events import RESULT_EVENTS
from services.kernel.dead_letters_api import router_of
from services.kernel.service import Definition

from .api import router
from .consumers import CONSUMERS
from .domain import Result
from .tables import association_copies, benchmark_copies, container_copies, dataset_copies, metadata

DEFINITION = Definition(
    name="results",
    title="MedPerf results",
    metadata=metadata,
    routers=(router, router_of("results")),
    publishes=RESULT_EVENTS,
    things={"result": Result},
    consumers=CONSUMERS,
    copies={
        "benchmark": benchmark_copies,
        "container": container_copies,
        "dataset": dataset_copies,
        "association": association_copies,
    },
)
