"""How a container and a benchmark are named by what they hold, the same on server and client."""

from __future__ import annotations

import hashlib
import json


def text_hash(text: str) -> str:
    """The SHA-256 of a manifest's or parameters file's UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def container_hash(
    *,
    manifest_hash: str,
    parameters_hash: str | None,
    additional_files_hash: str | None,
    image_hash: str | None,
) -> str:
    """The SHA-256 that says what a container does: over the hashes of its parts, as sorted compact JSON."""
    return _of(
        {
            "manifest": manifest_hash,
            "parameters": parameters_hash,
            "additional_files": additional_files_hash,
            "image": image_hash,
        }
    )


def benchmark_hash(*, preparation: str, reference_model: str, metrics: str, demo_data: str | None) -> str:
    """The SHA-256 that says what a benchmark measures: over its containers' hashes and its demo data's."""
    return _of(
        {
            "preparation": preparation,
            "reference_model": reference_model,
            "metrics": metrics,
            "demo_data": demo_data,
        }
    )


def _of(parts: dict[str, str | None]) -> str:
    return text_hash(json.dumps(parts, sort_keys=True, separators=(",", ":")))
