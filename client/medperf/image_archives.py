"""An image as a file, of `docker save` or an OCI layout: which image it holds, read by our own bounded reader."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import Path
from typing import IO, Any, NoReturn

from medperf.archives import BoundedStream, unpacked_stream
from medperf.errors import BadManifest

# An image has a layer for each step of its making, at most 127, and a few small files for each.
_ENTRIES_MOST = 10_000
# A configuration with a long history has some hundred kB. All such documents of an archive are kept at once.
_DOCUMENT_BYTES_MOST = 1024**2
_DOCUMENTS_BYTES_MOST = 32 * 1024**2
# As with other archives: what grows more than this is made to fill a disk.
_GROWTH_MOST = 200
_GROWTH_FREE_BYTES = 64 * 1024**2
_CHUNK_BYTES = 1024**2
_MANIFEST, _INDEX = "manifest.json", "index.json"
# What BuildKit lays beside an image: who built it and how, as a manifest of its own.
_BESIDE = "vnd.docker.reference.type"
# Singularity's images begin with this: for the engine that runs them, as they are.
_SIF = b"SIF_MAGIC"
_SIF_AT = 32
_HEX = re.compile("[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class ImageArchive:
    """An archive of one image. `sha256` is its ID: the SHA-256 of its configuration, which names each layer.

    `digests` are those of its manifests, by which other stores know it. `config`, `layers` and, in an OCI layout,
    `manifest` are entries of the archive, the layers from the lowest up.
    """

    file: Path
    sha256: str
    digests: tuple[str, ...]
    config: str
    layers: tuple[str, ...]
    manifest: str | None = None


def is_sif(file: Path) -> bool:
    """Whether the file is an image of Singularity."""
    with file.open("rb") as opened:
        return opened.read(_SIF_AT + len(_SIF))[_SIF_AT:] == _SIF


def read_image_archive(file: Path, *, name: str | None = None) -> ImageArchive:
    """Which image an archive holds; BadManifest, naming it by `name`, unless it is exactly one, whole."""
    contents = _Contents(name or file.name)
    with _readable(contents.name):
        for archive, member in _members(file, contents.name):
            contents.take(archive, member)
    named = _of_docker(file, contents) if _MANIFEST in contents.documents else None
    found = _of_oci(file, contents) if _INDEX in contents.documents else named
    if found is None:
        _refuse(contents.name, f"it has neither {_MANIFEST} nor {_INDEX}")
    if named is not None and named.sha256 != found.sha256:
        _refuse(contents.name, f"{_MANIFEST} and {_INDEX} name different images")
    return found


def checked_settings(archive: ImageArchive) -> Mapping[str, Any]:
    """What the image's configuration says of its program; BadManifest unless each layer is the one that it names.

    Docker finds that out itself. The image's ID, the hash of its configuration, says nothing of it before.
    """
    found: dict[str, str] = {}
    with _readable(archive.file.name):
        for tar, member in _members(archive.file, archive.file.name):
            name = _plain(member.name)
            opened = tar.extractfile(member) if name in (archive.config, *archive.layers) else None
            if opened is None:
                continue
            if name == archive.config:
                config = json.loads(opened.read())
                continue
            found[name] = _unpacked_sha256(opened)
    named = config.get("rootfs", {}).get("diff_ids")
    if named != [f"sha256:{found[name]}" for name in archive.layers]:
        _refuse(
            archive.file.name, "its layers are not those of its configuration, or packed in a way of their own"
        )
    return config.get("config") or {}


def _unpacked_sha256(layer: IO[bytes]) -> str:
    """Of a layer without its compression: gzip, or none."""
    hasher = hashlib.sha256()
    packed = layer.read(_CHUNK_BYTES)
    unpacking = zlib.decompressobj(wbits=31) if packed.startswith(b"\x1f\x8b") else None
    while packed:
        if unpacking is None:
            hasher.update(packed)
            packed = b""
        else:
            hasher.update(unpacking.decompress(packed, _CHUNK_BYTES))
            packed = unpacking.unconsumed_tail or unpacking.unused_data
            if unpacking.eof:  # it may consist of several
                unpacking = zlib.decompressobj(wbits=31)
        packed = packed or layer.read(_CHUNK_BYTES)
    return hasher.hexdigest()


def as_docker_loads_it(archive: ImageArchive, *, with_layout: bool = True) -> Iterator[bytes]:
    """The archive as a stream for `docker load`: its image alone, without the names that it would take here.

    Without its layout it is one for programs that know no archive in both forms.
    """
    parts = [archive.config, *archive.layers]
    manifest = archive.manifest if with_layout else None
    # An OCI layout's parts are found by their names; those of others get names that lead nowhere else.
    names = {part: part if manifest else f"{number}.part" for number, part in enumerate(parts)}
    listed = [{"Config": names[parts[0]], "RepoTags": None, "Layers": [names[part] for part in parts[1:]]}]
    yield _entry(_MANIFEST, json.dumps(listed).encode())
    with _readable(archive.file.name):
        for tar, member in _members(archive.file, archive.file.name):
            name = _plain(member.name)
            opened = tar.extractfile(member) if member.isreg() and name in {*names, manifest} else None
            if opened is None:
                continue
            if name == manifest:
                content = opened.read()
                yield _entry(name, content) + _as_layout(name, content)
                continue
            yield _header(names.pop(name), member.size)
            while chunk := opened.read(_CHUNK_BYTES):
                yield chunk
            yield _padding(member.size)
    yield tarfile.NUL * tarfile.BLOCKSIZE * 2


def _as_layout(name: str, manifest: bytes) -> bytes:
    """What makes an OCI layout of these parts: stores that know images by their manifests read it first."""
    described = {
        "mediaType": json.loads(manifest).get("mediaType", "application/vnd.oci.image.manifest.v1+json"),
        "digest": f"sha256:{posixpath.basename(name)}",
        "size": len(manifest),
    }
    index = json.dumps({"schemaVersion": 2, "manifests": [described]}).encode()
    return _entry(_INDEX, index) + _entry("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


@dataclass
class _Contents:
    """What an archive holds: its entries, where links lead, and its documents."""

    name: str
    entries: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    kept_bytes: int = 0

    def take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = _plain(member.name)
        if member.isdir():
            return
        if name in self.entries or name in self.links:
            _refuse(self.name, f"{name!r} is there twice")
        if len(self.entries) + len(self.links) >= _ENTRIES_MOST:
            _refuse(self.name, f"it has more than {_ENTRIES_MOST:,} entries")
        if member.issym():
            # `docker save` writes a layer once, and links to it from where it is used again.
            self.links[name] = _plain(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.isreg() and not member.issparse():
            self.entries.add(name)
            self._keep(archive, member, name)
        else:
            _refuse(self.name, f"{name!r} is neither a file nor a folder")

    def _keep(self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        if member.size > _DOCUMENT_BYTES_MOST:
            return
        opened = archive.extractfile(member)
        content = b"" if opened is None else opened.read()
        if not content.startswith((b"{", b"[")):
            return
        self.kept_bytes += len(content)
        if self.kept_bytes > _DOCUMENTS_BYTES_MOST:
            _refuse(self.name, "its documents are too large")
        self.documents[name] = content

    def entry(self, name: object) -> str:
        """The entry that a manifest names, behind a link of the archive's where it is one."""
        found = _plain(name) if isinstance(name, str) else ""
        found = self.links.get(found, found)
        if found not in self.entries:
            _refuse(self.name, f"it lacks {name!r}")
        return found

    def document(self, name: str) -> Any:
        """The content of a document in JSON."""
        if name not in self.documents:
            _refuse(self.name, f"it lacks the document {name!r}")
        try:
            return json.loads(self.documents[name])
        except (ValueError, RecursionError):
            _refuse(self.name, f"{name!r} is not valid JSON")

    def digest(self, name: str) -> str:
        """The SHA-256 of a document, in hex."""
        self.document(name)
        return hashlib.sha256(self.documents[name]).hexdigest()

    def has(self, descriptor: object) -> bool:
        """Whether the entry that an OCI descriptor names is here."""
        return self._blob_name(descriptor) in self.entries

    def blob(self, descriptor: object) -> str:
        """The entry that an OCI descriptor names by its digest."""
        return self.entry(self._blob_name(descriptor))

    def _blob_name(self, descriptor: object) -> str:
        digest = descriptor.get("digest") if isinstance(descriptor, Mapping) else None
        algorithm, _, hexadecimal = str(digest).partition(":")
        if algorithm != "sha256" or not _HEX.fullmatch(hexadecimal):
            _refuse(self.name, f"it names a part by {digest!r}, which is no SHA-256")
        return f"blobs/sha256/{hexadecimal}"

    def checked(self, descriptor: object) -> str:
        """The same of a document, which must be what the digest says."""
        name = self.blob(descriptor)
        if self.digest(name) != posixpath.basename(name):
            _refuse(self.name, f"{name!r} is not what its digest says")
        return name


def _of_docker(file: Path, contents: _Contents) -> ImageArchive:
    images = contents.document(_MANIFEST)
    if not isinstance(images, list) or not all(isinstance(image, Mapping) for image in images):
        _refuse(contents.name, f"{_MANIFEST} lists no images")
    if len(images) != 1:
        _refuse_number(contents.name, len(images))
    config = contents.entry(images[0].get("Config"))
    layers = tuple(contents.entry(layer) for layer in _list(images[0].get("Layers"), contents, _MANIFEST))
    return ImageArchive(file, contents.digest(config), (), config, layers)


def _of_oci(file: Path, contents: _Contents) -> ImageArchive:
    manifests, digests = _manifests(contents)
    if len(manifests) != 1:
        _refuse_number(contents.name, len(manifests))
    manifest = contents.document(manifests[0])
    config = contents.checked(manifest.get("config"))
    layers = tuple(contents.blob(layer) for layer in _list(manifest.get("layers"), contents, manifests[0]))
    return ImageArchive(file, contents.digest(config), digests, config, layers, manifests[0])


def _manifests(contents: _Contents) -> tuple[list[str], tuple[str, ...]]:
    """The documents of an OCI index's manifests, and the digests by which it and its images are known."""
    manifests: list[str] = []
    digests: list[str] = []
    waiting = _list(_mapping(contents, _INDEX).get("manifests"), contents, _INDEX)
    # An index may hold another, of platforms; one below that is nobody's.
    for depth in range(2):
        inner: list[Any] = []
        for descriptor in waiting:
            annotations = descriptor.get("annotations") if isinstance(descriptor, Mapping) else None
            if isinstance(annotations, Mapping) and _BESIDE in annotations:
                continue
            if depth and not contents.has(descriptor):
                continue  # of a platform that was not saved with it
            name = contents.checked(descriptor)
            document = _mapping(contents, name)
            digests.append(contents.digest(name))
            if "manifests" not in document:
                manifests.append(name)
            elif depth == 0:
                inner += _list(document["manifests"], contents, name)
            else:
                _refuse(contents.name, "its index is nested too deep")
        waiting = inner
    return manifests, tuple(dict.fromkeys(digests))


def _mapping(contents: _Contents, name: str) -> Mapping[str, Any]:
    document = contents.document(name)
    if not isinstance(document, Mapping):
        _refuse(contents.name, f"{name!r} is no mapping")
    return document


def _list(value: object, contents: _Contents, name: str) -> list[Any]:
    if not isinstance(value, list):
        _refuse(contents.name, f"{name!r} has no list where one must be")
    return value


def _members(file: Path, name: str) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The entries of an archive, in order and once, from a stream that is bounded."""
    refusal = _refusal(name, "it unpacks to far more than its size")
    left = max(_GROWTH_FREE_BYTES, _GROWTH_MOST * file.stat().st_size)
    with unpacked_stream(file) as stream:
        bounded = BoundedStream(stream, refusal)
        with tarfile.open(fileobj=bounded, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                archive.members = []
                left -= member.size
                if left < 0:
                    raise refusal
                bounded.allowed_bytes += member.size
                yield archive, member
        _read_to_end(bounded)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn the ways in which an archive is damaged into one; those of the disk stay what they are."""
    try:
        yield
    except (EOFError, OSError, tarfile.TarError, LZMAError, zlib.error) as broken:
        if isinstance(broken, OSError) and broken.errno is not None:
            raise
        raise BadManifest(
            f"The image archive {name} cannot be read: {broken}",
            hint="It is no image archive, or damaged; its owner must make it again (docker save -o FILE IMAGE).",
        ) from broken


def _read_to_end(stream: IO[bytes] | BoundedStream) -> None:
    # The compression's checksum comes last.
    while stream.read(_CHUNK_BYTES):
        pass


def _plain(name: str) -> str:
    return posixpath.normpath(name)


def _entry(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + _padding(len(content))


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return tarfile.NUL * (-size % tarfile.BLOCKSIZE)


def _refuse_number(name: str, number: int) -> NoReturn:
    _refuse(name, f"it holds {number} images, and one is meant")


def _refuse(name: str, fault: str) -> NoReturn:
    raise _refusal(name, fault)


def _refusal(name: str, fault: str) -> BadManifest:
    return BadManifest(
        f"The image archive {name} is refused: {fault}",
        hint="Its owner must make it again, of one image for one platform: docker save -o FILE IMAGE.",
    )
