"""The associations service, composed."""

from __future__ import annotations

from medperf_contracts.events import ASSOCIATION_EVENTS
from services.kernel.dead_letters_api import router_of
from services.kernel.service import Definition

from .api import router
from .consumers import CONSUMERS
from .domain import Association
from .tables import benchmark_copies, dataset_copies, metadata, model_copies

DEFINITION = Definition(
    name="associations",
    title="MedPerf associations",
    metadata=metadata,
    routers=(router, router_of("associations")),
    publishes=ASSOCIATION_EVENTS,
    things={"association": Association},
    consumers=CONSUMERS,
    copies={"benchmark": benchmark_copies, "container": model_copies, "dataset": dataset_copies},
)
