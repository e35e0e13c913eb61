"""The data owner's path: the real command at a terminal, the real server, real containers, real deliveries."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deployed.deployment import Deployment
from flow.conftest import StartServer
from medperf.assets import Assets
from medperf.home import Home
from medperf.images import keep_saved
from tutorials.path import YES, EmbeddedServer, Site, Step, data_owner_path, login

DISORDER_SEED = 20261123
DELIVERED_SECONDS = 30.0
# model -> (AUC, F1) on the tutorial's 240 phantoms
SCORES = {2: (0.872825, 0.691489), 4: (0.940797, 0.840426)}


def rows(server: EmbeddedServer | Deployment, service: str, query: str) -> list[tuple[object, ...]]:
    """What a service's database holds, read beside the server."""
    if isinstance(server, Deployment):
        return server.rows(service, query)
    with sqlite3.connect(f"file:{server.home / service}.db?mode=ro", uri=True) as connection:
        return connection.execute(query).fetchall()


def assert_nothing_is_left_over(server: EmbeddedServer | Deployment) -> None:
    """Every event is sent in time, every delivery had its effect once, and no message waits or died."""
    # The last event may be on its way still: a bus in disorder delivers it at the second try on average.
    deadline = time.monotonic() + DELIVERED_SECONDS
    for service in ("accounts", "registry", "associations", "results", "notifications"):
        while rows(server, service, "SELECT topic FROM outbox WHERE sent_millis IS NULL"):
            assert time.monotonic() < deadline, service
            time.sleep(0.05)
        assert rows(server, service, "SELECT consumer, topic, cause FROM inbox_message") == [], service


def test_the_path_runs_on_the_tutorials_data_and_then_on_real_x_rays(
    start_server: StartServer, site_of: Callable[[EmbeddedServer], Site], site_data: Path
) -> None:
    server = start_server()
    site = site_of(server)
    for step in data_owner_path():
        site.walk(step)
    for step in data_owner_path(dataset_id=2, data=site_data, is_first=False):
        site.walk(step)
    accepted = rows(server, "results", "SELECT benchmark_id, model_id, dataset_id FROM results ORDER BY id")
    assert accepted == [(1, 4, 1), (1, 2, 1), (1, 4, 2), (1, 2, 2)]
    assert_nothing_is_left_over(server)
    # What the server keeps of the data is metadata: no file name of a case is anywhere in its databases.
    for service in ("registry", "associations", "results", "notifications"):
        content = (server.home / f"{service}.db").read_bytes() + (server.home / f"{service}.db-wal").read_bytes()
        assert b"cxr0" not in content, service


def load_into_podman(images: Path) -> None:
    """Bring the tutorial's images from Docker to Podman, where they have the same IDs."""
    hashes = [f"sha256:{found}" for found in json.loads(images.read_text()).values()]
    with subprocess.Popen(["docker", "save", *hashes], stdout=subprocess.PIPE) as saving:
        loaded = subprocess.run(
            ["podman", "--remote", "load"], stdin=saving.stdout, capture_output=True, check=False
        )
    assert (loaded.returncode, saving.returncode) == (0, 0), loaded.stderr


def keep_for_apptainer(images: Path, home: Home) -> None:
    """Bring the tutorial's images from Docker to a local folder as files, as the import of a bundle does."""
    assets = Assets(home.assets, lambda url, _sink: pytest.fail(f"{url} is asked for"))
    for sha256 in json.loads(images.read_text()).values():
        file = home.root / "image.tar"
        subprocess.run(["docker", "save", "-o", str(file), f"sha256:{sha256}"], check=True)
        with file.open("rb") as opened:
            archive = hashlib.file_digest(opened, "sha256").hexdigest()
        assets.keep(file, archive)
        keep_saved(assets, sha256, archive)


@pytest.mark.xdist_group("images")
@pytest.mark.parametrize("platform", ["sandbox", "docker", "podman", "apptainer"])
def test_the_tutorial_gives_the_same_scores_in_every_engine(
    start_server: StartServer,
    site_of: Callable[[EmbeddedServer], Site],
    tutorial_images: Path,
    platform: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if platform == "podman":
        request.getfixturevalue("podman_base_image")
        load_into_podman(tutorial_images)
    server = start_server(images=tutorial_images)
    site = site_of(server)
    if platform == "apptainer":
        request.getfixturevalue("base_sif")
        monkeypatch.setenv("MEDPERF_HOME", str(site.folder / "medperf_home"))
        keep_for_apptainer(tutorial_images, Home.at(server.url))
    for step in data_owner_path(platform=platform):
        if step.title == "4. Run the benchmark":
            # Whoever lets images write to themselves is asked, and it is said with the result; a sandbox has none.
            answers = (YES,) if platform != "sandbox" else ()
            step = replace(step, command=f"{step.command} --writable_root", answers=answers)  # noqa: PLW2901
        site.walk(step)
    accepted = rows(server, "results", "SELECT model_id, metrics, engine, engine_reason FROM results ORDER BY id")
    scores = {model: json.loads(str(metrics)) for model, metrics, *_ in accepted}
    assert {model: (found["auc"], found["f1"]) for model, found in scores.items()} == SCORES
    assert {engine for *_, engine, _ in accepted} == {platform}
    reasons = {model: str(reason) for model, *_, reason in accepted}
    # Typed once, then remembered: the results are of the later commands.
    assert all(reason.startswith(f"remembered --platform {platform}") for reason in reasons.values())
    assert [model for model, reason in reasons.items() if "throwaway layer" in reason] == (
        [4] if platform != "sandbox" else []
    )
    with sqlite3.connect(next((site.folder / "medperf_home").glob("*/journal.sqlite"))) as journal:
        written = journal.execute("SELECT DISTINCT task FROM runs WHERE root_is_writable ORDER BY task").fetchall()
    assert written == ([("evaluate",), ("infer",)] if platform != "sandbox" else [])
    assert_nothing_is_left_over(server)


@pytest.mark.xdist_group("images")
def test_auto_takes_docker_where_it_has_the_registered_images_and_asks_nothing(
    start_server: StartServer, site_of: Callable[[EmbeddedServer], Site], tutorial_images: Path
) -> None:
    site = site_of(start_server(images=tutorial_images))
    made, logged_in, _, prepare, *_ = data_owner_path(platform="docker")
    for step in (made, logged_in, replace(prepare, command=prepare.command.replace(" --platform docker", ""))):
        site.walk(step)


@pytest.mark.parametrize("seed", [DISORDER_SEED, DISORDER_SEED + 1])
def test_the_path_is_the_same_with_deliveries_duplicated_delayed_and_reordered(
    start_server: StartServer, site_of: Callable[[EmbeddedServer], Site], seed: int
) -> None:
    server = start_server("--disorder", str(seed))
    site = site_of(server)
    for step in data_owner_path():
        site.walk(step)
    told = rows(server, "notifications", "SELECT user_id, topic, about FROM notifications")
    assert len(told) == len(set(told)), "nobody is told twice"
    log = [json.loads(line) for line in (server.home / "server.log").read_text().splitlines()]
    outcomes = [line["outcome"] for line in log if line["event"] == "delivery"]
    assert "handled_before" in outcomes, "the disorder was real"


@pytest.mark.parametrize("options", [(), ("--disorder", str(DISORDER_SEED))], ids=["in order", "in disorder"])
def test_the_server_stopped_and_started_between_any_two_steps_changes_nothing(
    start_server: StartServer, site_of: Callable[[EmbeddedServer], Site], options: tuple[str, ...]
) -> None:
    server = start_server(*options)
    site = site_of(server)
    for step in data_owner_path():
        assert server.stop() == 0
        server.start()
        site.walk(step)
    assert_nothing_is_left_over(server)


def test_after_a_reset_the_client_says_that_this_is_another_store_and_offers_to_set_the_old_folder_aside(
    start_server: StartServer, site_of: Callable[[EmbeddedServer], Site]
) -> None:
    server = start_server()
    site = site_of(server)
    site.walk(login("testdataowner"))
    server.stop()
    server.command("reset", "--yes")
    server.start()
    server.command("seed", "--demo", "data")
    refused = Step("No", "medperf benchmark ls", ((r"\[y/N\]: ", "n"),), ("another", "What to do:"), exit_code=3)
    site.walk(refused)
    site.walk(Step("Log in again", "medperf login", (YES, *login("testdataowner").answers), ("testdataowner",)))
    site.walk(Step("Look", "medperf benchmark ls", shows=("chest-xray-tutorial",)))
    assert list((site.folder / "medperf_home").glob("*set-aside*"))
