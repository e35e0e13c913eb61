"""Registering a container whose image every site fetches as an archive."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from client.conftest import NewPerson
from containers.image_files import layer, of_docker, sha256, write_tar
from containers.small import write_container
from medperf.manifest import Role
from peers.people import Person, serve_file
from tutorials.path import EmbeddedServer


@pytest.fixture
def owner(person: NewPerson) -> Person:
    return person("owner")


@pytest.fixture
def model(owner: Person) -> Path:
    """A model that only its image can run."""
    folder = write_container(owner.machine / "model", Role.MODEL, name=owner.name)
    shutil.rmtree(folder / "workspace" / "additional_files")
    manifest = yaml.safe_load((folder / "mlcube.yaml").read_text())
    del manifest["sandbox"]
    manifest["docker"] = {"image": "hospital/model:1"}
    (folder / "mlcube.yaml").write_text(yaml.safe_dump(manifest))
    return folder


@pytest.fixture
def archive(owner: Person) -> Path:
    return write_tar(owner.machine / f"{owner.name}.tar", of_docker(layer())[0])


def refused(owner: Person, *options: str, code: int, says: str) -> None:
    owner.try_to("container", "submit", "model", *options, "--yes")
    assert (owner.code, says in owner.said) == (code, True), owner.said
    assert "no such containers" in owner.do("container", "ls", "--mine")


def test_an_archive_is_read_and_registered_by_its_own_hash(
    owner: Person, embedded: EmbeddedServer, model: Path, archive: Path
) -> None:
    url = serve_file(embedded, archive)
    printed = owner.do("container", "submit", "model", "--image_url", url, "--yes")
    shown = json.loads(owner.do("container", "view", owner.uid_of(printed), "--json"))
    assert (shown["image_url"], shown["image_hash"]) == (url, sha256(archive.read_bytes()))
    assert f"image_hash: {shown['image_hash']}" in printed
    assert "never used" not in owner.said


def test_what_is_no_archive_of_one_image_is_not_registered(
    owner: Person, embedded: EmbeddedServer, model: Path, archive: Path
) -> None:
    entries, _ = of_docker(layer())
    two = json.dumps(json.loads(entries["manifest.json"]) * 2).encode()
    write_tar(archive, {**entries, "manifest.json": two})
    refused(owner, "--image_url", serve_file(embedded, archive), code=10, says="it holds 2 images")
    (owner.machine / "page.html").write_text("not here")
    page = serve_file(embedded, owner.machine / "page.html")
    refused(owner, "--image_url", page, code=10, says="cannot be read")
    refused(owner, "--image_url", str(archive), code=2, says="is a file on this machine")
    refused(owner, "--image_url", page, "--image_hash", "0" * 64, code=2, says="do not go together")
    refused(owner, code=2, says="give its archive (docker save) instead: --image_url")


def test_a_new_address_must_give_the_same_archive(
    owner: Person, embedded: EmbeddedServer, model: Path, archive: Path
) -> None:
    url = serve_file(embedded, archive)
    uid = owner.uid_of(owner.do("container", "submit", "model", "--image_url", url, "--yes"))
    other = write_tar(owner.machine / f"{owner.name}-2.tar", of_docker(layer("another"))[0])
    owner.try_to("container", "update", uid, "--image_url", serve_file(embedded, other), "--yes")
    assert (owner.code, "is registered as its image" in owner.said) == (8, True)
    (owner.machine / f"{owner.name}-3.tar").write_bytes(archive.read_bytes())
    elsewhere = serve_file(embedded, owner.machine / f"{owner.name}-3.tar")
    owner.do("container", "update", uid, "--image_url", elsewhere, "--yes")
    assert json.loads(owner.do("container", "view", uid, "--json"))["image_url"] == elsewhere
