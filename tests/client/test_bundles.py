"""Bundles: what is in them; one that is damaged, altered or of elsewhere is refused and changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest

from containers.image_files import layer, of_docker, write_tar
from containers.small import Shelf, archive_of, manifest_of
from medperf.api import Gateway
from medperf.cli.main import run
from medperf.engines.docker_connection import podman
from medperf.home import Home
from medperf.image_archives import read_image_archive
from medperf.manifest import Role
from medperf.offline import offline_gateway
from medperf_contracts.hashing import benchmark_hash, container_hash
from medperf_contracts.registry import ContainerView
from medperf_contracts.results import DueView
from peers import answers
from peers.benchmark_server import BenchmarkServer
from peers.scripted_peer import Asked, Reply, ScriptedPeer

Medperf = Callable[..., tuple[int, str, str]]
EXPORT = ("bundle", "export", "--benchmark", "1")


class Registry(BenchmarkServer):
    """A server that knows who asks, and the dataset, besides."""

    def __call__(self, asked: Asked) -> Reply:
        path = asked.path.removeprefix("/api/v1")
        if path == "/users/me":
            return Reply.of(answers.user())
        if path == "/datasets/9":
            uid = "ab" * 20
            body = {
                "name": "ours",
                "description": "",
                "location": "",
                "generated_uid": uid,
                "data_hash": "ab" * 32,
            }
            return Reply.of(self._dataset({**body, "preparation_id": 1, "statistics": {}}))
        return super().__call__(asked)

    def seal(self) -> None:
        """Give the benchmark the hash of its parts."""
        views = self.shelf.views
        parts = {"preparation": views[1].hash, "reference_model": views[2].hash, "metrics": views[3].hash}
        demo = answers.benchmark(**self.benchmark)["demo_data_hash"]
        self.benchmark["hash"] = benchmark_hash(**parts, demo_data=demo)


@pytest.fixture
def server() -> Registry:
    registry = Registry(Shelf())
    for number, role in ((1, Role.PREPARATION), (2, Role.MODEL), (3, Role.METRICS), (4, Role.MODEL)):
        registry.shelf.register(number, role, fault="none, but another hash" if number == 4 else "")
    registry.benchmark = {"preparation_id": 1, "reference_model_id": 2, "metrics_id": 3}
    registry.seal()
    return registry


@pytest.fixture
def peer(server: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedPeer]:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with ScriptedPeer(server) as answering:
        monkeypatch.setenv("MEDPERF_SERVER", answering.url)
        monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "online"))
        with Gateway(Home.at(answering.url)) as gateway:
            gateway.login("ada", "test")
        yield answering


@pytest.fixture
def medperf(peer: ScriptedPeer, capfd: pytest.CaptureFixture[str]) -> Medperf:
    def command(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        said = capfd.readouterr()
        return code, said.out, said.err

    return command


@pytest.fixture
def bundle(medperf: Medperf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle for dataset 9, as a folder; the commands that follow are typed at the site."""
    folder = tmp_path / "stick"
    code, _, err = medperf(*EXPORT, "--data_uid", 9, "--output", folder)
    assert code == 0, err
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "site"))
    return folder


def manifest_of_bundle(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "bundle.json").read_text())
    return found


def rewritten(folder: Path, path: str, content: bytes) -> None:
    """Replace a file of a bundle, and what its manifest says of it: as somebody would who means harm."""
    (folder / path).write_bytes(content)
    manifest = manifest_of_bundle(folder)
    for file in manifest["files"]:
        if file["path"] == path:
            file.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    (folder / "bundle.json").write_text(json.dumps(manifest))


def kept(tmp_path: Path) -> list[str]:
    """What a site has of bundles."""
    places = ("assets/sha256", "offline", "environments/wheels")
    found = [path for place in places for path in (tmp_path / "site").glob(f"*/{place}/**/*") if path.is_file()]
    return [path.name for path in found if path.suffix != ".lock" and path.name != ".lock"]


def test_a_bundle_holds_what_the_models_need_and_names_each_file_by_its_hash(
    bundle: Path, server: Registry
) -> None:
    manifest = manifest_of_bundle(bundle)
    listed = {file["path"] for file in manifest["files"]}
    archives = {view.additional_files_hash for view in server.shelf.views.values()}
    things = {f"containers/{number}" for number in (1, 2, 3, 4)}
    things |= {"server", "me", "benchmarks/1", "datasets/9", "associations/1-9", "due/1-9"}
    assert listed == {f"assets/{digest}" for digest in archives} | {f"answers/{thing}.json" for thing in things}
    for file in manifest["files"]:
        content = (bundle / file["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size"], file["sha256"])
    assert (manifest["benchmark_id"], manifest["dataset_id"], manifest["made_by"]["id"]) == (1, 9, 5)
    everything = "".join(path.read_text() for path in bundle.rglob("*.json"))
    assert "token" not in everything


def test_a_bundle_keeps_the_order_in_which_models_are_due_with_their_priorities(
    medperf: Medperf, server: Registry, peer: ScriptedPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.models, server.priorities = [4, 2], {4: 10, 2: 0}
    assert medperf(*EXPORT, "--data_uid", 9, "--output", tmp_path / "stick.tar")[0] == 0
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "site"))
    assert medperf("bundle", "import", tmp_path / "stick.tar", "--yes")[0] == 0
    with offline_gateway(Home.at(peer.url), notice=print) as gateway:
        due = list(gateway.items("/due", DueView, is_one_page=True, benchmark=1, dataset=9))
    assert [(item.model_id, item.priority) for item in due] == [(4, 10), (2, 0)]


def test_what_is_due_is_known_offline_also_where_the_benchmarks_owner_made_the_bundle(
    medperf: Medperf, server: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Online the owner asks for the models' associations first, which no bundle holds."""
    server.benchmark_owner_id = server.user_id
    assert medperf(*EXPORT, "--data_uid", 9, "--output", tmp_path / "stick.tar")[0] == 0
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "site"))
    assert medperf("bundle", "import", tmp_path / "stick.tar", "--yes")[0] == 0
    code, _, err = medperf(*EXPORT, "--data_uid", 9, "--output", tmp_path / "copy.tar", "--offline")
    assert code == 0, err


def test_the_file_and_the_folder_are_the_same_bundle(
    medperf: Medperf, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "stick.tar", "w") as archive:
        for path in sorted(bundle.rglob("*")):
            archive.add(path, path.relative_to(bundle), recursive=False)
    for given in (bundle, tmp_path / "stick.tar"):
        monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / f"site of {given.name}"))
        code, out, err = medperf("bundle", "import", given, "--yes")
        assert code == 0, err
        assert "Benchmark 1 (chest-1) for dataset 9" in out
        code, out, err = medperf("benchmark", "view", "1", "--offline")
        assert (code, "name: chest-1" in out) == (0, True), err
        assert "Offline: the server is as" in err


def test_it_is_taken_in_on_a_yes_only_and_its_fingerprint_must_be_the_one_that_was_told(
    medperf: Medperf, bundle: Path, tmp_path: Path
) -> None:
    assert medperf("bundle", "import", bundle)[0] == 3
    code, _, err = medperf("bundle", "import", bundle, "--yes", "--fingerprint", "0" * 64)
    assert (code, "not the one that was given" in err) == (8, True)
    assert kept(tmp_path) == []
    told = hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()
    assert medperf("bundle", "import", bundle, "--yes", "--fingerprint", told)[0] == 0
    assert "bundle.json" in kept(tmp_path)


def an_asset(folder: Path) -> Path:
    return next((folder / "assets").iterdir())


def lengthened(folder: Path) -> None:
    file = an_asset(folder)
    file.write_bytes(file.read_bytes() + b"\0")


def flipped(folder: Path) -> None:
    file = an_asset(folder)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def linked(folder: Path) -> None:
    (folder / "answers" / "me.json").unlink()
    (folder / "answers" / "me.json").symlink_to("/etc/passwd")


def a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def edited(**changes: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        (folder / "bundle.json").write_text(json.dumps({**manifest_of_bundle(folder), **changes}))

    return edit


def with_path(path: str) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        manifest = manifest_of_bundle(folder)
        manifest["files"][0]["path"] = path
        (folder / "bundle.json").write_text(json.dumps(manifest))

    return edit


def listed_twice(folder: Path) -> None:
    manifest = manifest_of_bundle(folder)
    manifest["files"].append(manifest["files"][0])
    (folder / "bundle.json").write_text(json.dumps(manifest))


def other_manifest(folder: Path) -> None:
    """A container whose code was replaced: its hash is no more that of its parts."""
    file = folder / "answers" / "containers" / "2.json"
    view = json.loads(file.read_text())
    view["manifest"] = view["manifest"].replace("small-model", "other-model")
    rewritten(folder, "answers/containers/2.json", json.dumps(view).encode())


def under_anothers_number(folder: Path) -> None:
    rewritten(folder, "answers/containers/2.json", (folder / "answers" / "containers" / "4.json").read_bytes())


def under_anothers_hash(folder: Path) -> None:
    rewritten(folder, f"assets/{an_asset(folder).name}", b"another file")


def no_answer(folder: Path) -> None:
    rewritten(folder, "answers/benchmarks/1.json", b'{"id": 1}')


@pytest.mark.parametrize(
    ("damage", "code", "said"),
    [
        (lengthened, 8, "is damaged: assets/"),
        (flipped, 8, "is damaged: assets/"),
        (lambda folder: an_asset(folder).unlink(), 8, "is not whole: assets/"),
        (lambda folder: (folder / "more.txt").write_text("x"), 8, "is not in its manifest"),
        (linked, 8, "which is no file"),
        (a_pipe, 8, "which is no file"),
        (lambda folder: (folder / "bundle.json").unlink(), 2, "is no bundle"),
        (lambda folder: (folder / "bundle.json").write_text("{"), 8, "cannot be used"),
        (edited(format=2), 8, "format"),
        (with_path("../../x"), 8, "path"),
        (with_path("answers/../x.json"), 8, "path"),
        (listed_twice, 8, "names a file twice"),
        (other_manifest, 8, "is not what its registered hash says"),
        (under_anothers_number, 8, "is not what its name says"),
        (under_anothers_hash, 8, "is not what its name says"),
        (no_answer, 8, "holds no answer of a server"),
        (edited(server="https://elsewhere.example"), 2, "The bundle is of https://elsewhere.example"),
    ],
)
@pytest.mark.parametrize("is_file", [False, True], ids=["folder", "file"])
def test_a_bundle_that_is_not_what_was_made_changes_nothing(
    medperf: Medperf,
    bundle: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    code: int,
    said: str,
    is_file: bool,
) -> None:
    damage(bundle)
    given = bundle
    if is_file:
        given = tmp_path / "stick.tar"
        with tarfile.open(given, "w") as archive:
            archive.add(bundle, ".")
    found, _, err = medperf("bundle", "import", given, "--yes")
    if is_file and damage in (linked, a_pipe):
        code, said = 10, "only files and folders are allowed"
    assert (found, said in err) == (code, True), err
    assert kept(tmp_path) == []


def test_a_file_that_was_cut_short_or_is_no_archive_is_refused(
    medperf: Medperf, tmp_path: Path, bundle: Path
) -> None:
    (tmp_path / "page.tar").write_text("a page that says 404")
    with tarfile.open(tmp_path / "whole.tar", "w") as archive:
        archive.add(bundle, ".")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:9000])
    for name in ("page.tar", "cut.tar"):
        code, _, err = medperf("bundle", "import", tmp_path / name, "--yes")
        assert code in (8, 10), err
    assert kept(tmp_path) == []


def test_a_bundle_of_another_store_is_not_mixed_with_this_ones(
    medperf: Medperf, bundle: Path, tmp_path: Path, peer: ScriptedPeer
) -> None:
    Home.at(peer.url).store.write_text("00000000-0000-0000-0000-000000000009\n")
    code, _, err = medperf("bundle", "import", bundle, "--yes")
    assert (code, "another store" in err) == (11, True)
    assert kept(tmp_path) == []


def test_offline_nothing_is_asked_nothing_is_sent_and_what_no_bundle_brought_is_named(
    medperf: Medperf, bundle: Path, server: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert medperf("bundle", "import", bundle, "--yes")[0] == 0
    monkeypatch.setenv("MEDPERF_OFFLINE", "1")
    server.asked.clear()
    code, _, err = medperf("container", "view", "77")
    assert (code, "No bundle brought /containers/77 to this machine" in err) == (2, True)
    code, _, err = medperf("benchmark", "ls")
    assert (code, "No bundle brought /benchmarks" in err) == (2, True)
    code, _, err = medperf("container", "set-operational", "4", "--yes")
    assert code != 0
    code, _, err = medperf("association", "approve", "--benchmark_uid", "1", "--data_uid", "9")
    assert code != 0
    code, _, err = medperf("dataset", "update", "9", "--description", "new", "--yes")
    assert (code, "Offline nothing can be sent to the server" in err) == (2, True)
    # Where somebody would be asked first, they are not.
    for command in (("dataset", "submit", "--data_uid", "9"), ("result", "submit", "--all")):
        code, out, err = medperf(*command)
        assert (code, "Offline nothing can be sent to the server" in err, out) == (2, True, "")
    assert server.asked == []
    assert server.posted == []
    monkeypatch.setenv("MEDPERF_OFFLINE", "yes")
    code, _, err = medperf("benchmark", "view", "1")
    assert (code, "neither 0 nor 1" in err) == (2, True)


def test_where_the_server_is_out_of_reach_the_bundle_that_is_here_is_spoken_of(
    medperf: Medperf, bundle: Path, peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Gateway.__init__.__kwdefaults__, "bound_seconds", 0.1)
    assert medperf("bundle", "import", bundle, "--yes")[0] == 0
    peer.__exit__(None, None, None)
    code, _, err = medperf("benchmark", "view", "1")
    assert (code, "--offline" in err) == (5, True), err


# What cannot be made


def test_a_bundle_is_whole_or_is_not_made(medperf: Medperf, server: Registry, tmp_path: Path) -> None:
    def refused(code: int, said: str, *options: object) -> None:
        found, _, err = medperf(*EXPORT, "--output", tmp_path / "b.tar", *options)
        assert (found, said in err) == (code, True), err
        assert not (tmp_path / "b.tar").exists()

    server.state = "PENDING"
    refused(15, "PENDING", "--data_uid", 9)
    server.state = "APPROVED"
    server.models = []
    refused(15, "is wanted", "--data_uid", 9)
    server.models = [2, 4]
    refused(2, "cannot be run with docker", "--platform", "docker")
    url = server.shelf.views[2].additional_files_url or ""
    content = server.shelf.files[url]
    server.shelf.files[url] = b"replaced"
    refused(8, "is registered", "--data_uid", 9)
    server.shelf.files[url] = content
    server.benchmark["hash"] = "0" * 64
    refused(8, "is not that of its parts")
    server.seal()
    (tmp_path / "b.tar").mkdir()
    assert medperf(*EXPORT, "--output", tmp_path / "b.tar")[0] == 2
    assert medperf(*EXPORT, "--output", tmp_path / "none" / "b.tar")[0] == 2


# Images


def with_image(server: Registry, number: int, *, image_hash: str, url: str | None = None) -> ContainerView:
    """Register a model that only an image can run."""
    manifest = {**manifest_of(Role.MODEL), "docker": {"image": "hospital/model:1"}}
    del manifest["sandbox"]
    view = server.shelf.add(
        number, Role.MODEL, manifest=json.dumps(manifest), parameters="fault: \n", archive=archive_of("file", b"")
    )
    parts = {"manifest_hash": view.manifest_hash, "parameters_hash": view.parameters_hash}
    whole = container_hash(**parts, additional_files_hash=view.additional_files_hash, image_hash=image_hash)
    changed = {"image_hash": image_hash, "image_url": url, "hash": whole}
    server.shelf.views[number] = view.model_copy(update=changed)
    return server.shelf.views[number]


@pytest.fixture
def daemon(base_image: str) -> Iterator[docker.DockerClient]:
    with closing(docker.from_env()) as client:
        yield client


def loaded(daemon: docker.DockerClient, archive: Path) -> None:
    with archive.open("rb") as file:
        daemon.images.load(file.read())


def test_an_image_that_is_registered_by_its_id_is_saved_and_found_again_at_the_site(
    medperf: Medperf,
    server: Registry,
    daemon: docker.DockerClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries, image_id = of_docker(layer("file", b"of a bundle"))
    loaded(daemon, write_tar(tmp_path / "image.tar", entries))
    with_image(server, 4, image_hash=image_id)
    code, _, err = medperf(*EXPORT, "--data_uid", 9, "--output", tmp_path / "stick")
    assert code == 0, err
    assert (tmp_path / "stick" / "images" / f"{image_id}.tar").is_file()
    daemon.images.remove(image_id, force=True)
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "site"))
    assert medperf("bundle", "import", tmp_path / "stick", "--yes")[0] == 0
    chosen = chosen_at_the_site(tmp_path, server.shelf.views[4])
    assert f"sha256:{image_id[:12]}" in chosen
    assert daemon.images.get(f"sha256:{image_id}").tags == []
    daemon.images.remove(f"sha256:{image_id}", force=True)
    # Under the name of another image it is refused.
    shutil.rmtree(tmp_path / "site")
    image = tmp_path / "stick" / "images" / f"{image_id}.tar"
    other = write_tar(tmp_path / "other.tar", of_docker(layer("another"))[0])
    rewritten(tmp_path / "stick", f"images/{image.name}", other.read_bytes())
    code, _, err = medperf("bundle", "import", tmp_path / "stick", "--yes")
    assert (code, "is not what its name says" in err) == (8, True), err
    assert kept(tmp_path) == []


def test_where_podman_alone_answers_it_saves_the_image(
    medperf: Medperf,
    server: Registry,
    podman_base_image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries, image_id = of_docker(layer("file", b"of a bundle that Podman made"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nobody.sock'}")
    with closing(docker.DockerClient(podman().address)) as daemon:
        loaded(daemon, write_tar(tmp_path / "image.tar", entries))
        with_image(server, 4, image_hash=image_id)
        code, _, err = medperf(*EXPORT, "--data_uid", 9, "--output", tmp_path / "stick")
        assert code == 0, err
        daemon.images.remove(image_id, force=True)
    saved = tmp_path / "stick" / "images" / f"{image_id}.tar"
    assert image_id in (read_image_archive(saved).sha256, *read_image_archive(saved).digests)
    monkeypatch.setenv("CONTAINER_HOST", f"unix://{tmp_path / 'nobody.sock'}")
    code, _, err = medperf(*EXPORT, "--data_uid", 9, "--output", tmp_path / "another")
    assert (code, "No Docker engine answers" in err) == (9, True), err


def chosen_at_the_site(tmp_path: Path, view: ContainerView) -> str:
    from medperf.assets import Assets
    from medperf.containers import fetch_container
    from medperf.engines.choice import Engines, Platform

    (root,) = (tmp_path / "site").glob("[!.]*_*")
    home = Home("http://localhost", root)

    def no_network(url: str, _sink: object) -> None:
        raise AssertionError(f"{url} is asked for")

    model = fetch_container(view, role=Role.MODEL, home=home, assets=Assets(home.assets, no_network))
    nothing: Mapping[str, object] = {"agree": print, "on_line": print, "say": print}
    engines = Engines(platform=Platform.DOCKER, home=root, packages_root=home.environments, **nothing)  # type: ignore[arg-type]
    with closing(engines):
        return engines.choose(model.runnable).reason


def test_an_archive_goes_as_it_is_registered_and_who_runs_all_in_the_sandbox_gets_no_image(
    medperf: Medperf,
    server: Registry,
    daemon: docker.DockerClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries, image_id = of_docker(layer("file", b"as an archive"))
    archive = write_tar(tmp_path / "image.tar", entries).read_bytes()
    digest = hashlib.sha256(archive).hexdigest()
    server.shelf.files["/assets/image.tar"] = archive
    with_image(server, 4, image_hash=digest, url="/assets/image.tar")
    code, _, err = medperf(*EXPORT, "--data_uid", 9, "--output", tmp_path / "none", "--platform", "sandbox")
    assert (code, "Container 4" in err) == (2, True)
    assert medperf(*EXPORT, "--data_uid", 9, "--output", tmp_path / "stick")[0] == 0
    assert (tmp_path / "stick" / "assets" / digest).read_bytes() == archive
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "site"))
    assert medperf("bundle", "import", tmp_path / "stick", "--yes")[0] == 0
    assert f"sha256:{image_id[:12]}" in chosen_at_the_site(tmp_path, server.shelf.views[4])
    daemon.images.remove(f"sha256:{image_id}", force=True)


def test_an_image_that_docker_cannot_have_is_an_error_unless_the_sandbox_runs_the_container(
    medperf: Medperf, server: Registry, daemon: docker.DockerClient, tmp_path: Path
) -> None:
    view = with_image(server, 4, image_hash="5" * 64)
    code, _, err = medperf(*EXPORT, "--data_uid", 9, "--output", tmp_path / "b.tar")
    assert (code, "cannot be pulled" in err) == (9, True), err
    assert not (tmp_path / "b.tar").exists()
    manifest = json.dumps({**manifest_of(Role.MODEL), "docker": {"image": "hospital/model:1"}})
    both = server.shelf.add(
        4, Role.MODEL, manifest=manifest, parameters="fault: \n", archive=archive_of("file", b"")
    )
    parts = {"manifest_hash": both.manifest_hash, "parameters_hash": both.parameters_hash}
    whole = container_hash(**parts, additional_files_hash=both.additional_files_hash, image_hash=view.image_hash)
    server.shelf.views[4] = both.model_copy(update={"image_hash": view.image_hash, "hash": whole})
    code, _, err = medperf(*EXPORT, "--data_uid", 9, "--output", tmp_path / "b.tar")
    assert (code, "Left out: the image of container 4" in err) == (0, True), err
