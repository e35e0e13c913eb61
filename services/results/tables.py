"""The results service's tables: results, and copies of what decides whether one is due."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, String, Table, UniqueConstraint
from sqlalchemy.orm import registry

from medperf_contracts.associations import AssociationState, PartKind
from medperf_contracts.values import Decision, State
from services.kernel.clock import BigId, Instant
from services.kernel.db import Choice, new_metadata

from .domain import Result

metadata = new_metadata()

# Triggers made by the first migration refuse to update or delete its rows.
results = Table(
    "results",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("version", Integer, nullable=False),
    Column("benchmark_id", BigInteger, nullable=False),
    Column("model_id", BigInteger, nullable=False, index=True),
    Column("dataset_id", BigInteger, nullable=False, index=True),
    Column("is_partial", Boolean, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("engine", String(256), nullable=False),
    Column("engine_reason", String(256), nullable=False, server_default=""),
    Column("dataset_hash", String(64), nullable=False),
    Column("model_hash", String(64), nullable=False),
    Column("metrics_hash", String(64), nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant, nullable=False),
    Column("submitted_at", Instant, nullable=False),
    UniqueConstraint("benchmark_id", "model_id", "dataset_id", "is_partial"),
    sqlite_autoincrement=True,
)

benchmark_copies = Table(
    "benchmark_copies",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("name", String(128), nullable=False),
    Column("owner_id", BigInteger, nullable=False, index=True),
    Column("state", Choice(State), nullable=False),
    Column("approval", Choice(Decision), nullable=False),
    Column("is_valid", Boolean, nullable=False),
    Column("reference_model_id", BigInteger, nullable=False),
    Column("metrics_id", BigInteger, nullable=False),
    Column("metrics_hash", String(64), nullable=False),
    Column("public_scores", Boolean, nullable=False),
)

container_copies = Table(
    "container_copies",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("name", String(128), nullable=False),
    Column("owner_id", BigInteger, nullable=False, index=True),
    Column("hash", String(64), nullable=False),
    Column("state", Choice(State), nullable=False),
    Column("is_valid", Boolean, nullable=False),
)

dataset_copies = Table(
    "dataset_copies",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("owner_id", BigInteger, nullable=False, index=True),
    Column("data_hash", String(64), nullable=False),
    Column("is_valid", Boolean, nullable=False),
)

# Not unique by pair: of an association that was withdrawn and made anew, the later one may be heard of first.
association_copies = Table(
    "association_copies",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("benchmark_id", BigInteger, nullable=False),
    Column("part_kind", Choice(PartKind), nullable=False),
    Column("part_id", BigInteger, nullable=False),
    Column("state", Choice(AssociationState), nullable=False),
    Column("priority", Integer, nullable=False, server_default="0"),
)
Index(
    "ix_association_copies_part",
    association_copies.c.part_kind,
    association_copies.c.part_id,
    association_copies.c.benchmark_id,
)

registry(metadata=metadata).map_imperatively(
    Result, results, version_id_col=results.c.version, eager_defaults=True
)
