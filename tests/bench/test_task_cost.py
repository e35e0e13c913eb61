"""What the client itself costs a task, beside a bare `docker run` of the same image on the same data."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from containers.images import image_name, small_images
from containers.small import Site
from medperf.containers import LocalContainer
from medperf.engines.base import Limits
from medperf.engines.choice import Engines, Platform
from medperf.manifest import Role
from medperf.shares import Shares
from medperf.tasks import Runner

PAIRS = 20
MOST_SECONDS = 0.150


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[tuple[Site, Runner]]:
    site = Site(tmp_path)
    engines = Engines(
        platform=Platform.DOCKER,
        home=site.home.root,
        packages_root=site.home.environments,
        agree=lambda _why: None,
        on_line=lambda _line: None,
        say=lambda _text: None,
    )
    with closing(engines):
        yield (
            site,
            Runner(
                site.home,
                site.journal,
                engines.choose,
                lambda _line: None,
                Shares(Limits(memory_bytes=512 * 1024**2)),
            ),
        )


@pytest.fixture
def model(runner: tuple[Site, Runner], base_image: str, tmp_path: Path) -> LocalContainer:
    with closing(docker.from_env()) as daemon:
        images = small_images(daemon, base_image, tmp_path)
    site, _ = runner
    view = site.shelf.register(2, Role.MODEL, image=image_name(Role.MODEL), image_hash=images[Role.MODEL])
    return site.fetch(view, Role.MODEL)


def seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_the_client_costs_a_task_150_ms_at_most(
    runner: tuple[Site, Runner], model: LocalContainer, tmp_path: Path
) -> None:
    site, one = runner
    place = tmp_path / "bare"
    place.mkdir()
    numbers = iter(range(1000))

    def by_the_client() -> None:
        content = {"data_path": str(next(numbers))}  # else the first run's outputs
        with one.run(
            model, "infer", {"data_path": site.data}, purpose="benchmark run", content=content
        ) as outputs:
            assert outputs.paths["output_path"].is_dir()

    def bare() -> None:
        out = place / str(next(numbers))
        out.mkdir()
        mounts = ("-v", f"{site.data}:/in:ro", "-v", f"{out}:/out", "-v", f"{model.workspace}:/parameters:ro")
        words = ("infer", "--data_path=/in", "--output_path=/out", "--parameters_file=/parameters/parameters.yaml")
        command = ["docker", "run", "--rm", "--network=none", *mounts, image_name(Role.MODEL), *words]
        subprocess.run(command, check=True, capture_output=True)

    by_the_client()
    bare()
    pairs = []
    for number in range(PAIRS):
        # In turn who is first: what one leaves behind in the engine is the other's.
        first, second = (by_the_client, bare) if number % 2 else (bare, by_the_client)
        took = {first: seconds(first), second: seconds(second)}
        pairs.append((took[by_the_client], took[bare]))
    more = statistics.median(client - alone for client, alone in pairs)
    print(
        f"median of {PAIRS} pairs: the client takes {1000 * more:+.0f} ms a task"
        f" ({1000 * statistics.median(it[0] for it in pairs):.0f} against"
        f" {1000 * statistics.median(it[1] for it in pairs):.0f} ms)"
    )
    assert more <= MOST_SECONDS, pairs
