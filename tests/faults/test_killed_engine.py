"""`benchmark run` under Docker while its client and its engine's daemon are killed again and again."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import docker
import pytest

from containers.images import image_name, small_images
from containers.small import Site, prepared_dataset
from medperf.api import Gateway
from medperf.causes import Cause
from medperf.datasets import find_dataset
from medperf.evaluation import find_evaluation
from medperf.home import Home
from medperf.journal import Journal, Run, RunState
from medperf.manifest import Role
from medperf.preferences import Preferences
from peers.benchmark_server import BenchmarkServer
from peers.scripted_peer import ScriptedPeer
from servers.dockerd import Dockerd, dockerd

SEED = int(os.environ.get("MEDPERF_FAULTS_SEED", "20261125"))
# The whole, once in a while: MEDPERF_FAULTS_KILLS=50, some minutes.
KILLS = int(os.environ.get("MEDPERF_FAULTS_KILLS", "12"))
MEDPERF = str(Path(sys.executable).with_name("medperf"))
MODELS = (2, 4, 5, 6, 7)
METRICS = 3
SECONDS = 1.2
# Of a run whose engine went: it was interrupted itself, or never began.
STARTING = timedelta(seconds=1)
INTERRUPTED = {Cause.ENGINE_GONE, Cause.ENGINE_UNAVAILABLE}
pytestmark = pytest.mark.xdist_group("faults-killed_engine")


@dataclass(frozen=True)
class Kill:
    """What was killed, and when."""

    what: str
    at: datetime


class Witness:
    """Looks at what containers write, by run, whatever the journal says."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.begun: set[str] = set()
        self.finished: set[str] = set()

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(0.01):
            for seen, name in ((self.begun, "predictions.csv"), (self.finished, "finished")):
                seen.update(path.parts[-4] for path in self._runs.glob(f"*/work/output_path/{name}"))


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_dataset(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module", params=[False, True], ids=["containers end with it", "live-restore"])
def engine(
    request: pytest.FixtureRequest, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Dockerd]:
    """An engine whose containers end with its daemon, as Docker does unless told otherwise, or outlive it."""
    with dockerd(live_restore=request.param) as begun:
        begun.load(base_image)
        with closing(docker.DockerClient(begun.address)) as client:
            begun.images = small_images(client, base_image, tmp_path_factory.mktemp("images"))
        yield begun


@contextmanager
def machine(folder: Path, dataset_folder: Path, engine: Dockerd) -> Iterator[tuple[Home, dict[str, str]]]:
    """A data owner's machine with a dataset in a benchmark of five models, and what its commands see."""
    site = Site(folder)
    server = BenchmarkServer(site.shelf)
    server.models = list(MODELS)
    for number, role, fault in (
        *((number, Role.MODEL, f"writes for {SECONDS} seconds, model {number}") for number in MODELS),
        (METRICS, Role.METRICS, ""),
    ):
        site.shelf.register(number, role, fault=fault, image=image_name(role), image_hash=engine.images[role])
    with ScriptedPeer(server) as peer, pytest.MonkeyPatch.context() as patch:
        own = {"MEDPERF_SERVER": peer.url, "MEDPERF_HOME": str(folder / "medperf"), "DOCKER_HOST": engine.address}
        for name, value in own.items():
            patch.setenv(name, value)
        home = Home.at(peer.url)
        Preferences(platform="docker").save(home.preferences)
        with Gateway(home) as gateway:
            gateway.login("ada", "test")
        shutil.copytree(dataset_folder, home.datasets / dataset_folder.name)
        find_dataset(home, dataset_folder.name).linked_to(9)
        yield home, {**os.environ, **own}


def test_killed_at_random_moments_it_ends_with_the_same_results_and_no_model_completed_twice(
    engine: Dockerd, dataset_folder: Path, tmp_path: Path
) -> None:
    drawn = random.Random(SEED)
    kills: Counter[str] = Counter()
    rounds = 0
    while kills.total() < KILLS // 2:  # the other half under the other kind of engine
        rounds += 1
        with ExitStack() as stack:
            home, environment = stack.enter_context(machine(tmp_path / str(rounds), dataset_folder, engine))
            witness = stack.enter_context(Witness(home.runs))
            killed = run_through(engine, environment, drawn)
        kills.update(kill.what for kill in killed)
        check(home, witness, [kill.at for kill in killed if kill.what != "client"])
    print(f"MEDPERF_FAULTS_SEED={SEED}: {dict(kills)} killed in {rounds} rounds of {len(MODELS)} models")


def run_through(engine: Dockerd, environment: dict[str, str], drawn: random.Random) -> list[Kill]:
    """Type `benchmark run` until it ends well, while something is killed now and then; what was killed."""
    killed: list[Kill] = []
    said = b""
    for _ in range(60):
        # Two at once go on with what one left, and one with what two did.
        jobs = str(drawn.choice((1, 2)))
        command = subprocess.Popen(
            [MEDPERF, "benchmark", "run", "--benchmark", "1", "--data_uid", "9", "--jobs", jobs],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            while command.poll() is None:
                # The command needs a second to begin, and then some for each model.
                try:
                    said, _ = command.communicate(timeout=drawn.uniform(0.3, 6.0))
                except subprocess.TimeoutExpired:
                    killed.append(Kill(drawn.choice(("client", "engine", "both")), datetime.now(UTC)))
                    if killed[-1].what != "engine":
                        command.kill()
                    if killed[-1].what != "client":
                        engine.kill()
                        time.sleep(drawn.uniform(0.0, 1.5))
                        engine.start()
        finally:
            command.kill()
            command.communicate()
        if command.returncode == 0:
            return killed
        # Killed, or told what of it could not be done.
        assert command.returncode in (-9, 7, 9, 13), said.decode()
    raise AssertionError(f"it did not come to its end: {said.decode()}")


def check(home: Home, witness: Witness, engine_killed_at: list[datetime]) -> None:
    def was_interrupted(run: Run) -> bool:
        """Whether its engine went under it; Docker forgets what it was just starting, and that may run on."""
        began = run.started_at or run.created_at
        return run.cause in INTERRUPTED or any(abs(at - began) < STARTING for at in engine_killed_at)

    kept = [find_evaluation(home, folder.name) for folder in home.results.iterdir() if folder.name != "names"]
    assert [it.metrics for it in kept if it is not None] == [{"auc": 0.015, "counts": {"cases": 3}}] * len(MODELS)
    runs = Journal(home.journal).runs()
    assert all(not run.is_open and (run.state is RunState.DONE or run.cause) for run in runs), runs
    assert list(home.runs.glob("*/work")) == []
    for number in MODELS:
        mine = [run for run in runs if run.container_name == f"small-model-{number}"]
        done = [run for run in mine if run.state is RunState.DONE]
        assert len(done) == 1, mine
        for run in mine:
            if run.id in witness.begun:
                assert run in done or was_interrupted(run), (run, run.id in witness.finished, engine_killed_at)
    assert witness.finished >= {run.id for run in runs if run.task == "infer" and run.state is RunState.DONE}
