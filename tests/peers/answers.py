"""What a server answers, as the tests of the client need it."""

from __future__ import annotations

import uuid
from typing import Any

STORE = str(uuid.UUID(int=7))
SERVER: dict[str, Any] = {
    "store_id": STORE,
    "version": "0.1.0",
    "is_embedded": True,
    "seeded_with": "data",
    "time": "2026-01-02T03:04:05Z",
}
HASH = "ab" * 32


def tokens(number: int = 1, *, username: str = "ada", user_id: int = 5, seconds: int = 900) -> dict[str, Any]:
    return {
        "access_token": f"access-{number}",
        "refresh_token": f"refresh-{number}-{'x' * 20}",
        "expires_in_seconds": seconds,
        "user_id": user_id,
        "username": username,
    }


def user() -> dict[str, Any]:
    return {
        "id": 5,
        "version": 1,
        "username": "ada",
        "is_admin": False,
        "created_at": "2026-01-02T03:04:05Z",
    }


def benchmark(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "version": 2,
        "name": f"chest-{number}",
        "description": "Finds an opacity.\nMore of it.",
        "docs_url": None,
        "owner_id": 3,
        "owner_name": "committee",
        "preparation_id": 1,
        "reference_model_id": 2,
        "metrics_id": 3,
        "demo_data_url": None,
        "demo_data_hash": None,
        "public_scores": False,
        "hash": HASH,
        "state": "OPERATION",
        "approval": "APPROVED",
        "is_valid": True,
        "created_at": "2026-01-02T03:04:05Z",
        **changes,
    }


def association(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "version": 1,
        "benchmark_id": 1,
        "benchmark_name": "chest-1",
        "benchmark_owner_id": 3,
        "part_kind": "dataset",
        "part_id": 1,
        "part_name": "mine",
        "part_owner_id": 5,
        "state": "PENDING",
        "requested_by": 5,
        "requested_at": "2026-01-02T03:04:05Z",
        "decided_by": None,
        "decided_at": None,
        "reason": "",
        "summary": {"auc": 0.9},
        **changes,
    }


def container(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "version": 1,
        "name": f"container-{number}",
        "description": "",
        "owner_id": 3,
        "owner_name": "committee",
        "state": "OPERATION",
        "is_valid": True,
        "hash": HASH,
        "manifest": "name: x\ntasks: {}\n",
        "manifest_hash": HASH,
        "parameters": None,
        "parameters_hash": None,
        "additional_files_url": None,
        "additional_files_hash": None,
        "image_url": None,
        "image_hash": None,
        "created_at": "2026-01-02T03:04:05Z",
        **changes,
    }


def dataset(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "version": 1,
        "name": f"dataset-{number}",
        "description": "",
        "location": "Here",
        "owner_id": 5,
        "owner_name": "ada",
        "generated_uid": HASH[:40],
        "data_hash": HASH,
        "preparation_id": 1,
        "preparation_hash": HASH,
        "statistics": {"cases": 3},
        "state": "OPERATION",
        "is_valid": True,
        "created_at": "2026-01-02T03:04:05Z",
        **changes,
    }


def result(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "version": 1,
        "benchmark_id": 1,
        "model_id": 4,
        "dataset_id": 1,
        "is_partial": False,
        "metrics": {"auc": 0.9},
        "engine": "sandbox",
        "dataset_hash": HASH,
        "model_hash": HASH,
        "metrics_hash": HASH,
        "started_at": "2026-01-02T03:04:05Z",
        "finished_at": "2026-01-02T03:04:06Z",
        "submitted_at": "2026-01-02T03:05:00Z",
        "is_current": True,
        "not_current_because": [],
        **changes,
    }


def notification(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "version": 1,
        "user_id": 5,
        "topic": "association.approved.v1",
        "about": "association/1",
        "text": "Your dataset was approved.",
        "created_at": "2026-01-02T03:04:05Z",
        "is_read": False,
        **changes,
    }


def page(*items: dict[str, Any], next_cursor: str | None = None) -> dict[str, Any]:
    return {"items": list(items), "next_cursor": next_cursor}
