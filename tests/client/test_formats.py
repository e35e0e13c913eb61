"""The same containers under every engine, in both formats of manifests: the same data, the same scores."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import docker
import pytest

from containers.images import image_name, small_images
from containers.small import Site, archive_of, code, config_of
from medperf.assets import Assets
from medperf.containers import LocalContainer
from medperf.engines.base import Limits
from medperf.engines.choice import Engines, Platform
from medperf.engines.docker_connection import DOCKER, podman
from medperf.evaluation import evaluate
from medperf.images import keep_saved
from medperf.manifest import Role
from medperf.preparation import Description, prepare
from medperf.shares import Shares
from medperf.tasks import Runner

PREPARATION, MODEL, METRICS = 1, 2, 3
# Where an engine's images are built.
BUILT_IN = {Platform.DOCKER: "base_image", Platform.PODMAN: "podman_base_image", Platform.APPTAINER: "base_image"}


@pytest.fixture(scope="module", params=["docker", "podman", "apptainer"])
def images(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Platform, dict[Role, str], Path]:
    """An engine, the SHA-256 of each small container's image in it, and where what it made of them is kept."""
    platform = Platform(request.param)
    base = request.getfixturevalue(BUILT_IN[platform])
    kept = tmp_path_factory.mktemp("kept")
    if platform is Platform.APPTAINER:
        request.getfixturevalue("base_sif")
    with closing(docker.DockerClient((podman() if platform is Platform.PODMAN else DOCKER).address)) as client:
        hashes = small_images(client, base, tmp_path_factory.mktemp("images"))
        if platform is Platform.APPTAINER:
            keep_archives(client, hashes.values(), kept)
    return platform, hashes, kept


def keep_archives(client: docker.DockerClient, hashes: Iterable[str], kept: Path) -> None:
    """Have the images at hand as files, as they are once a bundle brought them."""
    for sha256 in hashes:
        file = kept / "archive.tar"
        with file.open("wb") as opened:
            opened.writelines(client.images.get(f"sha256:{sha256}").save())
        with file.open("rb") as opened:
            archive = hashlib.file_digest(opened, "sha256").hexdigest()
        assets = Assets(kept / "assets", lambda url, _sink: pytest.fail(f"{url} is asked for"))
        assets.keep(file, archive)
        keep_saved(assets, sha256, archive)


@pytest.fixture
def runner(tmp_path: Path, images: tuple[Platform, dict[Role, str], Path]) -> Iterator[tuple[Site, Runner]]:
    site = Site(tmp_path)
    for kept in images[2].iterdir():
        shutil.copytree(kept, site.home.root / kept.name, dirs_exist_ok=True)
    engines = Engines(
        platform=images[0],
        home=site.home.root,
        packages_root=site.home.environments,
        agree=lambda _why: None,
        on_line=site.lines.append,
        say=site.lines.append,
    )
    with closing(engines):
        yield (
            site,
            Runner(
                site.home,
                site.journal,
                engines.choose,
                site.lines.append,
                Shares(Limits(memory_bytes=512 * 1024**2)),
            ),
        )


def container(site: Site, number: int, role: Role, form: str, images: dict[Role, str]) -> LocalContainer:
    image = {"image": image_name(role), "image_hash": images[role]}
    if form == "mlcube.yaml":
        return site.fetch(site.shelf.register(number, role, **image), role)
    view = site.shelf.add(
        number,
        role,
        manifest=json.dumps(config_of(role, image=image_name(role))),
        parameters="fault:\n",
        archive=archive_of("main.py", code(role)),
        image_hash=images[role],
    )
    return site.fetch(view, role)


def test_a_container_that_takes_additional_files_and_has_none_finds_an_empty_folder(
    runner: tuple[Site, Runner], images: tuple[Platform, dict[Role, str]]
) -> None:
    site, by_image = runner
    config = config_of(Role.MODEL, image=image_name(Role.MODEL))
    place = {"mount_path": "/volumes/additional_files", "type": "directory"}
    config["tasks"]["infer"]["input_volumes"]["additional_files"] = place
    parts = {"manifest": json.dumps(config), "parameters": "fault:\n", "image_hash": images[1][Role.MODEL]}
    view = site.shelf.add(MODEL, Role.MODEL, archive=None, **parts)
    with by_image.run(site.fetch(view, Role.MODEL), "infer", {"data_path": site.data}, purpose="test") as outputs:
        assert (outputs.paths["output_path"] / "predictions.csv").stat().st_size > 0


@pytest.mark.parametrize("form", ["mlcube.yaml", "container_config.yaml"])
def test_the_same_containers_give_the_same_data_and_scores_in_every_engine_and_format(
    runner: tuple[Site, Runner], images: tuple[Platform, dict[Role, str], Path], form: str
) -> None:
    site, by_image = runner
    platform, hashes, kept = images
    made = [
        prepare(
            one,
            preparation,
            data_path=site.data,
            labels_path=site.labels,
            about=Description("mine", "", ""),
            step=lambda _: nullcontext(),
        )
        for one, preparation in (
            (site.runner(), site.container(PREPARATION, Role.PREPARATION)),
            (by_image, container(site, PREPARATION, Role.PREPARATION, form, hashes)),
        )
    ]
    assert made[0].generated_uid == made[1].generated_uid
    assert made[0].statistics == made[1].statistics
    scored = [
        evaluate(one, made[0], model, metrics, purpose="benchmark run", on_step=site.steps.append).evaluation
        for one, model, metrics in (
            (site.runner(), site.container(MODEL, Role.MODEL), site.container(METRICS, Role.METRICS)),
            (
                by_image,
                container(site, MODEL, Role.MODEL, form, hashes),
                container(site, METRICS, Role.METRICS, form, hashes),
            ),
        )
    ]
    assert [(it.engine, it.metrics) for it in scored] == [
        ("sandbox", {"auc": 0.015, "counts": {"cases": 3}}),
        (platform.value, {"auc": 0.015, "counts": {"cases": 3}}),
    ]
    # Of the other format's test: it is the same image, which is made once.
    made_of_them = site.home.root / "sifs"
    if made_of_them.exists():
        shutil.copytree(made_of_them, kept / "sifs", dirs_exist_ok=True)
