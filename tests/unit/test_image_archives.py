"""Which image an archive holds, read by ourselves: one whole image, or a refusal that says what is wrong."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from containers.image_files import Entries, config, layer, of_docker, of_oci, sha256, write_tar
from medperf import image_archives
from medperf.errors import BadManifest
from medperf.image_archives import as_docker_loads_it, is_sif, read_image_archive

LAYERS = (layer("a", b"one"), layer("b", b"two"))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("make", [of_docker, of_oci, lambda *layers: of_oci(*layers, is_nested=True)])
def test_an_image_is_known_by_the_hash_of_its_configuration(
    tmp_path: Path, make: Callable[..., tuple[Entries, str]], mode: str
) -> None:
    entries, image_id = make(*LAYERS)
    found = read_image_archive(write_tar(tmp_path / "image.tar", entries, mode=mode))
    assert found.sha256 == image_id
    assert len(found.layers) == 2


def test_the_hash_is_computed_and_never_taken_from_a_name(tmp_path: Path) -> None:
    entries, image_id = of_docker(*LAYERS)
    other = config(*LAYERS, label="another image under the name of this one")
    entries[f"{image_id}.json"] = other
    assert read_image_archive(write_tar(tmp_path / "image.tar", entries)).sha256 == sha256(other)
    entries, image_id = of_oci(*LAYERS)
    entries[f"blobs/sha256/{image_id}"] = other
    with pytest.raises(BadManifest, match="is not what its digest says"):
        read_image_archive(write_tar(tmp_path / "image.tar", entries))


def test_a_layer_that_is_a_link_to_another_of_the_archive_is_followed(tmp_path: Path) -> None:
    entries, image_id = of_docker(LAYERS[0], LAYERS[0])
    entries["1/layer.tar"] = "-> ../0/layer.tar"
    found = read_image_archive(write_tar(tmp_path / "image.tar", entries))
    assert (found.sha256, found.layers) == (image_id, ("0/layer.tar", "0/layer.tar"))


def listed(*images: dict[str, object]) -> bytes:
    return json.dumps(images).encode()


DOCKER, OCI = of_docker(*LAYERS)[0], of_oci(*LAYERS)[0]
IMAGE = json.loads(DOCKER["manifest.json"])[0]


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        ({"a": b"1"}, "neither manifest.json nor index.json"),
        ({**DOCKER, "manifest.json": listed(IMAGE, IMAGE)}, "it holds 2 images"),
        ({**DOCKER, "manifest.json": listed()}, "it holds 0 images"),
        ({**DOCKER, "manifest.json": b"[1]"}, "lists no images"),
        ({**DOCKER, "manifest.json": b"[{"}, "is not valid JSON"),
        ({**DOCKER, "manifest.json": b"[" * 500_000}, "is not valid JSON"),
        ({**DOCKER, "manifest.json": listed({**IMAGE, "Config": "/etc/passwd"})}, "lacks '/etc/passwd'"),
        ({**DOCKER, "manifest.json": listed({**IMAGE, "Config": None})}, "lacks None"),
        ({**DOCKER, "manifest.json": listed({**IMAGE, "Config": "0/layer.tar"})}, "lacks the document"),
        ({**DOCKER, "manifest.json": listed({**IMAGE, "Layers": ["0/layer.tar", "9"]})}, "lacks '9'"),
        ({**DOCKER, "manifest.json": listed({**IMAGE, "Layers": "all"})}, "no list"),
        ({**DOCKER, "0/layer.tar": "-> /etc/passwd"}, "lacks '0/layer.tar'"),
        ({**DOCKER, "./0/layer.tar": b"again"}, "there twice"),
        ({**OCI, "index.json": b"{}"}, "no list"),
        ({**OCI, "index.json": b'{"manifests": []}'}, "it holds 0 images"),
        ({**OCI, "index.json": b'{"manifests": [{"digest": "md5:1"}]}'}, "no SHA-256"),
        ({**OCI, "index.json": b'{"manifests": [{"digest": "sha256:../../x"}]}'}, "no SHA-256"),
        ({**DOCKER, **of_oci(LAYERS[0])[0]}, "name different images"),
    ],
)
def test_what_is_not_one_whole_image_is_refused_by_its_fault(tmp_path: Path, entries: Entries, fault: str) -> None:
    with pytest.raises(BadManifest, match=f"image.tar is refused: .*{fault}") as raised:
        read_image_archive(write_tar(tmp_path / "image.tar", entries))
    assert "docker save" in raised.value.hint


def test_two_images_in_an_oci_layout_are_two(tmp_path: Path) -> None:
    (first, _), (second, _) = of_oci(LAYERS[0]), of_oci(LAYERS[1])
    both = [*json.loads(first["index.json"])["manifests"], *json.loads(second["index.json"])["manifests"]]
    entries = {**first, **second, "index.json": json.dumps({"manifests": both}).encode()}
    with pytest.raises(BadManifest, match="it holds 2 images"):
        read_image_archive(write_tar(tmp_path / "image.tar", entries))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"no archive at all",
        lambda data: data[:1500],
        lambda data: gzip.compress(data)[:-300],
        lambda data: gzip.compress(b"no archive at all" * 100),
    ],
)
def test_a_file_that_is_cut_or_no_archive_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = write_tar(tmp_path / "image.tar", of_docker(layer("a", os.urandom(20_000)))[0])
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BadManifest, match=r"image archive image\.tar (cannot be read|is refused)"):
        read_image_archive(file)


def test_what_unpacks_to_far_more_than_its_size_is_not_read_on(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "bomb.tar", of_docker(bytes(100 * 1024**2))[0], mode="w:gz")
    with pytest.raises(BadManifest, match="far more than its size"):
        read_image_archive(file)


def test_the_number_of_entries_and_the_documents_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_tar(tmp_path / "image.tar", DOCKER)
    monkeypatch.setattr(image_archives, "_ENTRIES_MOST", 3)
    with pytest.raises(BadManifest, match="more than 3 entries"):
        read_image_archive(file)
    monkeypatch.undo()
    monkeypatch.setattr(image_archives, "_DOCUMENTS_BYTES_MOST", 300)
    with pytest.raises(BadManifest, match="documents are too large"):
        read_image_archive(file)


@pytest.mark.parametrize("make", [of_docker, of_oci])
def test_the_engine_is_given_the_image_alone_without_the_names_that_it_asks_for(
    tmp_path: Path, make: Callable[..., tuple[Entries, str]]
) -> None:
    entries, image_id = make(*LAYERS)
    file = write_tar(tmp_path / "image.tar", {**entries, "repositories": b'{"python": {}}', "more": b"x" * 5000})
    stream = io.BytesIO(b"".join(as_docker_loads_it(read_image_archive(file))))
    with tarfile.open(fileobj=stream) as archive:
        given = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    (listed_image,) = json.loads(given["manifest.json"])
    assert listed_image["RepoTags"] is None
    assert sha256(given[listed_image["Config"]]) == image_id
    assert [given[name] for name in listed_image["Layers"]] == list(LAYERS)
    assert not {"repositories", "more"} & set(given)
    assert ("index.json" in given) == (make is of_oci)


def test_an_image_of_singularity_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.sif").write_bytes(b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0rest")
    assert is_sif(tmp_path / "a.sif")
    assert not is_sif(write_tar(tmp_path / "image.tar", DOCKER))
