"""Image archives of a few bytes, as `docker save` and as an OCI layout write them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What an entry holds; a link is written as `-> TARGET`.
Entries = dict[str, bytes | str]


def write_tar(file: Path, entries: Mapping[str, bytes | str], *, mode: str = "w") -> Path:
    """An archive of these entries."""
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content.removeprefix("-> ")
                archive.addfile(entry)
                continue
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file


def layer(name: str = "file", content: bytes = b"content") -> bytes:
    """A layer with one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def config(*layers: bytes, label: str = "", settings: Mapping[str, Any] | None = None) -> bytes:
    """An image's configuration, of these layers; `settings` are those of its program."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"test": label}, **(settings or {"Cmd": ["/file"]})},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(one)}" for one in layers]},
            "history": [{"created_by": "test"} for _ in layers],
        }
    ).encode()


def sha256(content: bytes) -> str:
    """In hex."""
    return hashlib.sha256(content).hexdigest()


def of_docker(
    *layers: bytes, tag: str = "hospital/model:1", label: str = "", settings: Mapping[str, Any] | None = None
) -> tuple[Entries, str]:
    """What `docker save` of Docker 24 and before writes of an image, and the image's ID in hex."""
    made = config(*layers, label=label, settings=settings)
    name = f"{sha256(made)}.json"
    listed = [{"Config": name, "RepoTags": [tag], "Layers": [f"{n}/layer.tar" for n in range(len(layers))]}]
    entries: Entries = {f"{n}/layer.tar": content for n, content in enumerate(layers)}
    return {name: made, **entries, "manifest.json": json.dumps(listed).encode()}, sha256(made)


def of_oci(
    *layers: bytes, label: str = "", is_nested: bool = False, settings: Mapping[str, Any] | None = None
) -> tuple[Entries, str]:
    """An OCI layout of an image, perhaps behind an index of platforms with what BuildKit adds; the image's ID."""
    made = config(*layers, label=label, settings=settings)
    entries: Entries = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
    descriptors = [_blob(entries, content) for content in layers]
    manifest = {"schemaVersion": 2, "config": _blob(entries, made), "layers": descriptors}
    described = _blob(entries, json.dumps(manifest).encode())
    if is_nested:
        beside = {**_blob(entries, b'{"about": 1}'), "annotations": {"vnd.docker.reference.type": "attestation"}}
        absent = {"digest": f"sha256:{'1' * 64}", "size": 7}
        inner = json.dumps({"schemaVersion": 2, "manifests": [described, beside, absent]}).encode()
        described = _blob(entries, inner)
    entries["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [described]}).encode()
    return entries, sha256(made)


def _blob(entries: Entries, content: bytes) -> dict[str, Any]:
    entries[f"blobs/sha256/{sha256(content)}"] = content
    return {"digest": f"sha256:{sha256(content)}", "size": len(content)}
