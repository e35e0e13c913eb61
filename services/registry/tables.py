"""The registry's tables: containers, benchmarks, datasets, progress, and copies of datasets' associations."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.orm import registry

from medperf_contracts.associations import AssociationState, PartKind
from medperf_contracts.values import Decision, State
from services.kernel.clock import BigId, Instant
from services.kernel.db import Choice, new_metadata

from .domain.benchmarks import Benchmark
from .domain.containers import Container
from .domain.datasets import Dataset
from .domain.progress import Progress

metadata = new_metadata()

containers = Table(
    "containers",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("version", Integer, nullable=False),
    Column("name", String(128), nullable=False, index=True),
    Column("description", Text, nullable=False),
    Column("owner_id", BigInteger, nullable=False),
    Column("owner_name", String(64), nullable=False),
    Column("state", Choice(State), nullable=False, index=True),
    Column("is_valid", Boolean, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("manifest", Text, nullable=False),
    Column("manifest_hash", String(64), nullable=False),
    Column("parameters", Text, nullable=True),
    Column("parameters_hash", String(64), nullable=True),
    Column("additional_files_url", String(2048), nullable=True),
    Column("additional_files_hash", String(64), nullable=True),
    Column("image_url", String(2048), nullable=True),
    Column("image_hash", String(64), nullable=True),
    Column("created_at", Instant, nullable=False),
    # Its index also serves the lists of one owner.
    UniqueConstraint("owner_id", "hash"),
    sqlite_autoincrement=True,
)

benchmarks = Table(
    "benchmarks",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("version", Integer, nullable=False),
    Column("name", String(128), nullable=False, index=True),
    Column("description", Text, nullable=False),
    Column("docs_url", String(2048), nullable=True),
    Column("owner_id", BigInteger, nullable=False),
    Column("owner_name", String(64), nullable=False),
    Column("preparation_id", BigId, ForeignKey("containers.id"), nullable=False),
    Column("preparation_hash", String(64), nullable=False),
    Column("reference_model_id", BigId, ForeignKey("containers.id"), nullable=False),
    Column("metrics_id", BigId, ForeignKey("containers.id"), nullable=False),
    Column("metrics_hash", String(64), nullable=False),
    Column("demo_data_url", String(2048), nullable=True),
    Column("demo_data_hash", String(64), nullable=True),
    Column("public_scores", Boolean, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("state", Choice(State), nullable=False, index=True),
    Column("approval", Choice(Decision), nullable=False, index=True),
    Column("decided_by", BigInteger, nullable=True),
    Column("is_valid", Boolean, nullable=False),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("owner_id", "hash"),
    sqlite_autoincrement=True,
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("version", Integer, nullable=False),
    Column("name", String(128), nullable=False),
    Column("description", Text, nullable=False),
    Column("location", String(256), nullable=False),
    Column("owner_id", BigInteger, nullable=False),
    Column("owner_name", String(64), nullable=False),
    Column("generated_uid", String(40), nullable=False, index=True),
    Column("data_hash", String(64), nullable=False, index=True),
    Column("preparation_id", BigId, ForeignKey("containers.id"), nullable=False),
    Column("preparation_hash", String(64), nullable=False),
    Column("statistics", JSON, nullable=False),
    Column("state", Choice(State), nullable=False),
    Column("is_valid", Boolean, nullable=False),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("owner_id", "data_hash", "preparation_id"),
    sqlite_autoincrement=True,
)

progress = Table(
    "progress",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("version", Integer, nullable=False),
    Column("benchmark_id", BigId, ForeignKey("benchmarks.id"), nullable=False, index=True),
    Column("owner_id", BigInteger, nullable=False),
    Column("owner_name", String(64), nullable=False),
    Column("preparation", Uuid, nullable=False),
    # Empty once it was taken back: the row stays, so that what was late on its way is refused.
    Column("stages", JSON, nullable=False),
    Column("is_withdrawn", Boolean, nullable=False),
    Column("began_at", Instant, nullable=False),
    Column("told_at", Instant, nullable=False),
    UniqueConstraint("owner_id", "benchmark_id", "preparation"),
    sqlite_autoincrement=True,
)

association_copies = Table(
    "association_copies",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("benchmark_id", BigInteger, nullable=False, index=True),
    Column("benchmark_owner_id", BigInteger, nullable=False, index=True),
    Column("part_kind", Choice(PartKind), nullable=False),
    Column("part_id", BigInteger, nullable=False, index=True),
    Column("state", Choice(AssociationState), nullable=False),
)

_mapped = registry(metadata=metadata)
_mapped.map_imperatively(Container, containers, version_id_col=containers.c.version, eager_defaults=True)
_mapped.map_imperatively(Benchmark, benchmarks, version_id_col=benchmarks.c.version, eager_defaults=True)
_mapped.map_imperatively(Dataset, datasets, version_id_col=datasets.c.version, eager_defaults=True)
_mapped.map_imperatively(Progress, progress, version_id_col=progress.c.version, eager_defaults=True)
