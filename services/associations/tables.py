"""The associations service's tables: associations, and copies of what takes part in them."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, String, Table, Text
from sqlalchemy.orm import registry

from medperf_contracts.associations import LIVE, AssociationState, PartKind
from medperf_contracts.values import Decision, State
from services.kernel.clock import BigId, Instant
from services.kernel.db import Choice, new_metadata

from .domain import Association

metadata = new_metadata()

associations = Table(
    "associations",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("version", Integer, nullable=False),
    Column("benchmark_id", BigInteger, nullable=False, index=True),
    Column("benchmark_name", String(128), nullable=False),
    Column("benchmark_owner_id", BigInteger, nullable=False, index=True),
    Column("part_kind", Choice(PartKind), nullable=False),
    Column("part_id", BigInteger, nullable=False),
    Column("part_name", String(128), nullable=False),
    Column("part_owner_id", BigInteger, nullable=False, index=True),
    Column("state", Choice(AssociationState), nullable=False),
    Column("requested_by", BigInteger, nullable=False),
    Column("requested_at", Instant, nullable=False),
    Column("decided_by", BigInteger, nullable=True),
    Column("decided_at", Instant, nullable=True),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("reason", Text, nullable=False),
    Column("summary", JSON, nullable=False),
    sqlite_autoincrement=True,
)
_is_live = associations.c.state.in_(LIVE)
Index(
    "uq_associations_live_pair",
    associations.c.benchmark_id,
    associations.c.part_kind,
    associations.c.part_id,
    unique=True,
    sqlite_where=_is_live,
    postgresql_where=_is_live,
)

benchmark_copies = Table(
    "benchmark_copies",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("name", String(128), nullable=False),
    Column("owner_id", BigInteger, nullable=False),
    Column("state", Choice(State), nullable=False),
    Column("approval", Choice(Decision), nullable=False),
    Column("is_valid", Boolean, nullable=False),
    Column("preparation_hash", String(64), nullable=False),
    Column("reference_model_id", BigInteger, nullable=False),
    # Kept since 0003: null for a benchmark that has not changed since.
    Column("preparation_id", BigInteger, nullable=True),
    Column("metrics_id", BigInteger, nullable=True),
)

model_copies = Table(
    "model_copies",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("name", String(128), nullable=False),
    Column("owner_id", BigInteger, nullable=False),
    Column("state", Choice(State), nullable=False),
    Column("is_valid", Boolean, nullable=False),
)

dataset_copies = Table(
    "dataset_copies",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("name", String(128), nullable=False),
    Column("owner_id", BigInteger, nullable=False),
    Column("state", Choice(State), nullable=False),
    Column("is_valid", Boolean, nullable=False),
    Column("data_hash", String(64), nullable=False, index=True),
    Column("preparation_hash", String(64), nullable=False),
)

registry(metadata=metadata).map_imperatively(
    Association, associations, version_id_col=associations.c.version, eager_defaults=True
)
