"""Images that are registered as archives: fetched, checked, loaded into the real Docker, and run by their ID."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

from containers.image_files import layer, of_docker, of_oci, sha256, write_tar
from containers.small import Site, code, manifest_of
from medperf.assets import Assets
from medperf.containers import LocalContainer, fetch_container
from medperf.engines.base import Image
from medperf.engines.choice import Engines, Platform
from medperf.engines.docker_images import load_image
from medperf.errors import BadManifest, ClientError, EngineUnavailable, IntegrityError, ServerUnreachable
from medperf.image_archives import read_image_archive
from medperf.manifest import Role
from medperf.tasks import Runner
from medperf_contracts.hashing import container_hash
from medperf_contracts.registry import ContainerView

URL = "/assets/image.tar"
TAG = "hospital/model:1"
NEVER_LOADED = layer("never", b"loaded")


@pytest.fixture(scope="module")
def daemon(base_image: str) -> Iterator[docker.DockerClient]:
    with closing(docker.from_env()) as client:
        yield client


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def saved(daemon: docker.DockerClient, base_image: str, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """What `docker save` writes of an image with a small model, and its ID; Docker has it no more."""
    folder = tmp_path / "built"
    folder.mkdir()
    (folder / "main.py").write_bytes(code(Role.MODEL))
    lines = (f"FROM sha256:{base_image}", "COPY main.py /main.py", 'ENTRYPOINT ["python3", "/main.py"]')
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    image, _ = daemon.images.build(path=str(folder), tag=TAG, network_mode="none", rm=True)
    archive = tmp_path / "image.tar"
    with archive.open("wb") as file:
        for chunk in image.save(named=True):
            file.write(chunk)
    image_id = str(image.id)
    daemon.images.remove(image_id, force=True)
    yield archive, image_id.removeprefix("sha256:")
    for name in (TAG, image_id):
        if has(daemon, name):
            daemon.images.remove(name, force=True)


def has(daemon: docker.DockerClient, name: str) -> bool:
    try:
        daemon.images.get(name)
    except ImageNotFound:
        return False
    return True


def registered(site: Site, archive: Path, *, url: str = URL, with_sandbox: bool = False) -> ContainerView:
    """A model whose image is registered as this archive, without a file of its own but the parameters."""
    manifest = {**manifest_of(Role.MODEL), "docker": {"image": TAG}}
    if not with_sandbox:
        del manifest["sandbox"]
    view = site.shelf.add(4, Role.MODEL, manifest=json.dumps(manifest), parameters="fault: \n", archive=b"")
    digest = sha256(archive.read_bytes())
    parts = {"manifest_hash": view.manifest_hash, "parameters_hash": view.parameters_hash}
    whole = container_hash(additional_files_hash=None, image_hash=digest, **parts)
    no_files = {"additional_files_url": None, "additional_files_hash": None}
    return view.model_copy(update={**no_files, "image_url": url, "image_hash": digest, "hash": whole})


class Source:
    """What is behind the URL, counting how often it is asked for."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.asked = 0

    def __call__(self, url: str, sink: Callable[[bytes], object]) -> None:
        self.asked += 1
        sink(self.file.read_bytes())


def brought(site: Site, view: ContainerView, download: Callable[..., object]) -> LocalContainer:
    return fetch_container(view, role=Role.MODEL, home=site.home, assets=Assets(site.home.assets, download))


def engines(site: Site, platform: str = "docker", asked: list[str] | None = None) -> Engines:
    return Engines(
        platform=Platform(platform),
        home=site.home.root,
        packages_root=site.home.environments,
        agree=(asked if asked is not None else []).append,
        on_line=site.lines.append,
        say=site.lines.append,
    )


def test_an_archive_is_fetched_loaded_once_and_run_by_the_id_that_was_read_from_it(
    site: Site, daemon: docker.DockerClient, saved: tuple[Path, str]
) -> None:
    archive, image_id = saved
    source, view = Source(archive), registered(site, archive)
    model = brought(site, view, source)
    with closing(engines(site)) as here:
        chosen = here.choose(model.runnable)
        assert chosen.reason == f"--platform docker: it has the registered image sha256:{image_id[:12]}"
        runner = Runner(site.home, site.journal, here.choose, site.lines.append)
        with runner.run(model, "infer", {"data_path": site.data}, purpose="benchmark run") as outputs:
            written = (outputs.paths["output_path"] / "predictions.csv").read_text()
    assert written.splitlines() == ["case0.txt,3", "case1.txt,5", "case2.txt,7"]
    assert any("loading the image" in line for line in site.lines)
    # The archive asks for a name; what is on the site's machine under that name is the site's.
    assert daemon.images.get(f"sha256:{image_id}").tags == []
    # Another command needs neither the URL nor the archive again.
    (site.home.assets / "sha256" / sha256(archive.read_bytes())).unlink()
    with closing(engines(site)) as here:
        assert here.choose(brought(site, view, source).runnable).engine.name == "docker"
    assert source.asked == 1


@pytest.mark.parametrize("make", [of_docker, of_oci, lambda one: of_oci(one, is_nested=True)])
def test_every_form_of_an_archive_is_loaded_as_the_image_that_it_holds(
    site: Site, daemon: docker.DockerClient, tmp_path: Path, make: Callable[..., tuple[dict[str, bytes], str]]
) -> None:
    entries, image_id = make(layer("file", make.__qualname__.encode()))
    for mode in ("w", "w:gz"):
        archive = write_tar(tmp_path / f"{mode[-1]}.tar", entries, mode=mode)
        model = brought(site, registered(site, archive), Source(archive))
        with closing(engines(site)) as here:
            assert f"sha256:{image_id[:12]}" in here.choose(model.runnable).reason
        assert has(daemon, f"sha256:{image_id}")
        daemon.images.remove(f"sha256:{image_id}", force=True)


def other_file(archive: Path) -> Callable[..., object]:
    archive.write_bytes(archive.read_bytes() + b"\0")
    return Source(archive)


def gone(_url: str, _sink: object) -> None:
    raise ServerUnreachable("cut off", hint="again")


def of_singularity(archive: Path) -> None:
    archive.write_bytes(b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0rest")


def of_two(archive: Path) -> None:
    entries, _ = of_docker(NEVER_LOADED)
    (image,) = json.loads(entries["manifest.json"])
    write_tar(archive, {**entries, "manifest.json": json.dumps([image, image]).encode()})


@pytest.mark.parametrize(
    ("make", "download", "error", "said"),
    [
        (None, other_file, IntegrityError, "is registered"),
        (None, lambda _: gone, ServerUnreachable, "cut off"),
        (of_two, Source, BadManifest, "it holds 2 images"),
        (lambda archive: archive.write_bytes(b"a page that says 404"), Source, BadManifest, "cannot be read"),
        (of_singularity, Source, EngineUnavailable, "Docker does not run"),
    ],
    ids=["another file", "out of reach", "several", "no archive", "singularity"],
)
def test_what_is_not_the_registered_archive_of_one_image_is_not_loaded(
    site: Site,
    daemon: docker.DockerClient,
    tmp_path: Path,
    make: Callable[[Path], object] | None,
    download: Callable[[Path], Callable[..., object]],
    error: type[ClientError],
    said: str,
) -> None:
    entries, image_id = of_docker(NEVER_LOADED)
    archive = write_tar(tmp_path / "image.tar", entries)
    if make is not None:
        make(archive)
    view = registered(site, archive)
    with closing(engines(site)) as here, pytest.raises(error, match=said):
        here.choose(brought(site, view, download(archive)).runnable)
    # Of this one image: other tests load and remove theirs at the same time.
    assert not has(daemon, f"sha256:{image_id}")


def test_what_docker_then_has_must_be_the_image_that_was_read(daemon: docker.DockerClient, tmp_path: Path) -> None:
    entries, image_id = of_docker(layer("x", b"another"))
    archive = replace(read_image_archive(write_tar(tmp_path / "image.tar", entries)), sha256="0" * 64)
    with pytest.raises(IntegrityError, match="is not the image of its archive"):
        load_image(daemon, Image(TAG, "0" * 64), archive, on_line=lambda _: None)
    daemon.images.remove(f"sha256:{image_id}", force=True)


def test_layers_that_are_not_those_of_the_configuration_are_refused_by_docker(
    site: Site, daemon: docker.DockerClient, tmp_path: Path
) -> None:
    entries, image_id = of_docker(layer("file", b"as registered"))
    entries["0/layer.tar"] = layer("file", b"replaced")
    archive = write_tar(tmp_path / "image.tar", entries)
    with closing(engines(site)) as here, pytest.raises(EngineUnavailable, match="cannot load the image"):
        here.choose(brought(site, registered(site, archive), Source(archive)).runnable)
    assert not has(daemon, f"sha256:{image_id}")


@pytest.mark.parametrize("content", ["", "not a hash\n", "\xff"])
def test_a_damaged_record_of_which_image_it_is_is_made_again(
    site: Site, daemon: docker.DockerClient, tmp_path: Path, content: str
) -> None:
    entries, image_id = of_docker(layer("file", b"of a record"))
    archive = write_tar(tmp_path / "image.tar", entries)
    record = site.home.assets / "images" / sha256(archive.read_bytes())
    record.parent.mkdir(parents=True)
    record.write_text(content, encoding="latin-1")
    with closing(engines(site)) as here:
        here.choose(brought(site, registered(site, archive), Source(archive)).runnable)
    assert record.read_text() == f"{image_id}\n"
    # One that names another image, which Docker has not: the archive says which it is.
    record.write_text(f"{hashlib.sha256(b'other').hexdigest()}\n")
    with closing(engines(site)) as here, pytest.raises(IntegrityError, match="named another image"):
        here.choose(brought(site, registered(site, archive), Source(archive)).runnable)
    assert record.read_text() == f"{image_id}\n"
    daemon.images.remove(f"sha256:{image_id}", force=True)


def test_who_wants_the_sandbox_fetches_no_image_and_auto_asks_where_it_is_out_of_reach(
    site: Site, tmp_path: Path, base_image: str
) -> None:
    archive = write_tar(tmp_path / "image.tar", of_docker(layer())[0])
    source, asked = Source(archive), list[str]()
    view = registered(site, archive, with_sandbox=True)
    model = brought(site, view, source)
    assert engines(site, "sandbox").choose(model.runnable).engine.name == "sandbox"
    assert (source.asked, model.runnable.image) == (0, None)
    with closing(engines(site, "auto", asked)) as here:
        chosen = here.choose(brought(site, view, gone).runnable)
    assert chosen.reason == "auto, agreed to: the registered image cannot be had"
    assert asked == ["cut off"]
