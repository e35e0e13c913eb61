"""What is kept that can be had again: listed with whose it is, checked, and removed where nothing needs it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from containers.small import Site, archive_of, manifest_of
from containers.wheels import wheel
from medperf.assets import Assets
from medperf.cli.main import run
from medperf.engines.packages import WHEELS, install
from medperf.home import Home
from medperf.journal import Journal
from medperf.manifest import Package, Role
from peers.runs import open_run

DAY_SECONDS = 24 * 3600
Medperf = Callable[..., tuple[int, str, str]]


@pytest.fixture
def medperf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Medperf:
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "medperf"))
    monkeypatch.setenv("MEDPERF_SERVER", "http://localhost:8000")

    def command(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        said = capfd.readouterr()
        return code, said.out, said.err

    return command


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return wheel(tmp_path / "index")


@pytest.fixture
def site(tmp_path: Path, medperf: Medperf, packages: Package) -> Site:
    """A machine with two containers laid out, one of them with a package, and a wheel that a bundle brought."""
    site = Site(tmp_path)
    site.home = Home.at("http://localhost:8000")
    site.journal = Journal(site.home.journal)
    site.container(2, Role.MODEL, fault="old")
    manifest: dict[str, Any] = manifest_of(Role.MODEL)
    needed = {"name": f"{packages.name}=={packages.version}", "hashes": [f"sha256:{packages.sha256[0]}"]}
    manifest["sandbox"]["packages"] = [needed]
    parts = {"manifest": json.dumps(manifest), "parameters": "fault: \n", "archive": archive_of("other.py", b"")}
    site.fetch(site.shelf.add(4, Role.MODEL, **parts), Role.MODEL)  # type: ignore[arg-type]
    install(site.home.environments, (packages,), on_line=lambda _: None)
    wheels = site.home.environments / WHEELS
    wheels.mkdir()
    shutil.copy(next((tmp_path / "index").iterdir()), wheels)
    return site


def listed(medperf: Medperf) -> list[dict[str, Any]]:
    code, out, err = medperf("cache", "ls", "--json")
    assert code == 0, err
    found: list[dict[str, Any]] = json.loads(out)
    return found


def aged(site: Site, *, days: float, of: str = "") -> None:
    """Let what a container uses (by its hash), or all, have been used so long ago."""
    then = time.time() - days * DAY_SECONDS
    for path in site.home.root.rglob("*"):
        if path.is_file() and of in str(path):
            os.utime(path, (then, then))


def test_the_list_says_what_how_large_whose_and_since_when(site: Site, medperf: Medperf) -> None:
    things = listed(medperf)
    found = {(one["kind"], tuple(one["containers"])) for one in things}
    second = "4 (small-model-4)"
    assert found == {
        ("file", ("2 (small-model-2)",)),
        ("file", (second,)),
        ("container", ("2 (small-model-2)",)),
        ("container", (second,)),
        ("packages", (second,)),
        ("wheel", (second,)),
    }
    archive = site.shelf.files[site.shelf.views[2].additional_files_url or ""]
    (file,) = [one for one in things if one["kind"] == "file" and one["containers"] == ["2 (small-model-2)"]]
    assert (file["name"], file["size_bytes"]) == (site.shelf.views[2].additional_files_hash, len(archive))
    code_, out, _ = medperf("cache", "ls")
    assert (code_, "tiny-1.0-py3-none-any.whl" in out, "Last used" in out) == (0, True, True)


def test_use_renews_what_is_used_and_its_files(site: Site, medperf: Medperf) -> None:
    aged(site, days=40)
    site.container(2, Role.MODEL, fault="old")
    recent = {one["kind"] for one in listed(medperf) if one["used_at"] > time.strftime("%Y-%m-%d", time.gmtime())}
    assert recent == {"file", "container"}


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("file", "assets/sha256/*"),
        ("container", "containers/*/content/workspace/additional_files/main.py"),
        ("packages", "environments/*/content/tiny.py"),
        ("wheel", f"environments/{WHEELS}/*.whl"),
    ],
)
def test_what_is_damaged_is_named_and_ends_with_the_code_of_a_wrong_hash(
    site: Site, medperf: Medperf, kind: str, place: str
) -> None:
    code_, out, _ = medperf("cache", "verify")
    assert (code_, "All 6 are what they were" in out) == (0, True)
    flip(next(path for path in site.home.root.glob(place) if path.is_file()))
    code_, out, err = medperf("cache", "verify")
    assert (code_, "1 of 6" in err, "fetches or makes it anew" in err) == (8, True, True)
    assert [line.split()[0] for line in out.splitlines()[2:]] == [kind]
    code_, out, err = medperf("cache", "verify", "--json")
    assert (code_, [one["kind"] for one in json.loads(out)]) == (8, [kind])


def test_only_what_nothing_used_lately_goes_and_only_on_a_yes(site: Site, medperf: Medperf) -> None:
    kept = {path for path in site.home.root.rglob("*") if path.is_file()}
    assert "nothing goes" in medperf("cache", "prune")[1]
    aged(site, days=40)
    site.container(2, Role.MODEL, fault="old")
    code_, out, err = medperf("cache", "prune")
    assert (code_, "small-model-4" in out, "small-model-2" in out) == (3, True, False)
    assert kept <= {path for path in site.home.root.rglob("*") if path.is_file()}
    code_, out, err = medperf("cache", "prune", "--yes")
    assert (code_, "Removed 4" in out) == (0, True), err
    assert {tuple(one["containers"]) for one in listed(medperf)} == {("2 (small-model-2)",)}
    assert code_ == 0
    # It comes back when it is needed.
    manifest = site.shelf.views[4]
    site.fetch(manifest, Role.MODEL)
    assert {"4 (small-model-4)"} <= {name for one in listed(medperf) for name in one["containers"]}


def test_prepared_data_results_records_and_logs_stay_whatever_their_age(site: Site, medperf: Medperf) -> None:
    for name in ("datasets/ab/dataset.yaml", "results/cd/result.yaml", "runs/ef/task.log", "environments/x.log"):
        file = site.home.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("ours")
    aged(site, days=400)
    assert medperf("cache", "prune", "--unused_days", "0", "--yes")[0] == 0
    assert listed(medperf) == []
    left = {path.relative_to(site.home.root).as_posix() for path in site.home.root.rglob("*") if path.is_file()}
    wanted = {"datasets/ab/dataset.yaml", "results/cd/result.yaml", "runs/ef/task.log", "environments/x.log"}
    assert wanted | {"journal.sqlite"} <= left


def test_nothing_goes_while_another_command_works_here_or_a_run_goes_on(site: Site, medperf: Medperf) -> None:
    aged(site, days=40)
    child = os.fork()
    if child == 0:
        with site.home.lock():
            time.sleep(60)
        os._exit(0)
    try:
        time.sleep(0.5)
        code_, _, err = medperf("cache", "prune", "--yes")
        assert (code_, f"process {child}" in err) == (12, True)
        assert len(listed(medperf)) == 6
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    # A run that its command had to leave may still read its container and its packages.
    open_run(site.journal, run_id="1" * 8, container_hash=site.shelf.views[4].hash)
    assert medperf("cache", "prune", "--yes")[0] == 0
    assert sorted(one["kind"] for one in listed(medperf)) == ["container", "packages", "wheel"]


def test_a_record_of_a_container_that_is_damaged_leaves_it_listed_without_a_name(
    site: Site, medperf: Medperf
) -> None:
    (site.home.containers / site.shelf.views[2].hash / "about.json").write_text("{")
    assert ("container", []) in [(one["kind"], one["containers"]) for one in listed(medperf)]
    site.container(2, Role.MODEL, fault="old")
    assert ("container", []) not in [(one["kind"], one["containers"]) for one in listed(medperf)]


def test_a_file_of_no_container_is_kept_by_its_own_last_use(site: Site, medperf: Medperf) -> None:
    (url,) = [url for url in site.shelf.files if url.endswith("model-2.tar")]
    digest = site.shelf.views[2].additional_files_hash or ""
    shutil.rmtree(site.home.containers)
    aged(site, days=40)
    Assets(site.home.assets, site.shelf.download).fetch(url, digest)
    assert medperf("cache", "prune", "--yes")[0] == 0
    assert [(one["kind"], one["name"]) for one in listed(medperf)] == [("file", digest)]
