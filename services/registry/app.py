"""The registry, composed."""

from __future__ import annotations

from medperf_contracts.events import BENCHMARK_EVENTS, CONTAINER_EVENTS, DATASET_EVENTS
from services.kernel.dead_letters_api import router_of
from services.kernel.service import Definition

from .api import benchmarks, containers, datasets, progress
from .consumers import CONSUMERS
from .domain.benchmarks import Benchmark
from .domain.containers import Container
from .domain.datasets import Dataset
from .tables import association_copies, metadata

DEFINITION = Definition(
    name="registry",
    title="MedPerf registry",
    metadata=metadata,
    routers=(containers.router, benchmarks.router, datasets.router, progress.router, router_of("registry")),
    publishes=(*CONTAINER_EVENTS, *BENCHMARK_EVENTS, *DATASET_EVENTS),
    things={"container": Container, "benchmark": Benchmark, "dataset": Dataset},
    consumers=CONSUMERS,
    copies={"association": association_copies},
)
