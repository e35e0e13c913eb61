"""The order in which a benchmark wants its models run: its owner's, followed wherever they are run."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.small import write_cases
from flow.test_path import rows
from medperf.manifest import Role
from peers.people import Parts, Person, add_account, log_in, open_benchmark, register_container
from tutorials.path import EmbeddedServer

DISORDER_SEED = 7
# A bus in disorder takes an event at the second try on average, the later ones after growing delays.
HEARD_SECONDS = 60


@pytest.fixture(params=[(), ("--disorder", str(DISORDER_SEED))], ids=["in order", "in disorder"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server whose bus delivers at once, or doubled, late and in another order."""
    server = EmbeddedServer(tmp_path / "server", request.param)
    server.start()
    try:
        yield server
    finally:
        if server.is_running:
            server.stop()


def models_of(printed: str) -> list[int]:
    """The models in a run's table, in its order."""
    return [int(uid) for uid in re.findall(r"^ +(\d+) +b\d+m", printed, re.MULTILINE)]


def test_models_are_run_in_the_order_of_their_priorities_online_and_from_a_bundle(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def someone(name: str, *, is_admin: bool = False) -> Person:
        add_account(server, name, is_admin=is_admin)
        return log_in(Person(name, tmp_path / name, server.url, monkeypatch, capsys))

    committee, administrator, ada = someone("committee"), someone("admin", is_admin=True), someone("ada")
    parts = Parts.of(committee, server)
    benchmark, reference = open_benchmark(committee, administrator, parts), parts.reference_model
    of_benchmark = ("--benchmark_uid", benchmark)

    def taking_part(fault: str) -> int:
        uid = register_container(committee, server, Role.MODEL, fault=fault)
        committee.do("model", "associate", *of_benchmark, "--model_uid", uid, "--yes")
        return uid

    one, two, three = (taking_part(f"none, but another hash than {number}") for number in range(3))

    def set_priority(model: int, priority: int) -> None:
        committee.do(
            "association", "set_priority", *of_benchmark, "--model_uid", model, "--priority", priority, "--yes"
        )
        deadline = time.monotonic() + HEARD_SECONDS
        heard = f"SELECT priority FROM association_copies WHERE part_kind = 'model' AND part_id = {model}"
        while rows(server, "results", heard) != [(priority,)]:
            assert time.monotonic() < deadline, f"{model} has not got its priority {priority}"
            time.sleep(0.05)

    cases = write_cases(ada.machine / "raw")
    paths = ("--data_path", cases / "images", "--labels_path", cases / "labels")
    printed = ada.do("dataset", "create", "--name", "ours", *paths, "--benchmark", benchmark)
    uid = printed.split("Generated UID: ")[1].split()[0]
    printed = ada.do("dataset", "submit", "--data_uid", uid, "--yes")
    dataset = ada.uid_of(printed.replace("Registered as OPERATION. ", ""))
    ada.do("dataset", "associate", *of_benchmark, "--data_uid", dataset, "--yes")
    committee.do("association", "approve", *of_benchmark, "--data_uid", dataset)
    run = ("benchmark", "run", "--benchmark", benchmark, "--data_uid", dataset)

    set_priority(three, 10)
    set_priority(one, -10)
    assert models_of(ada.do(*run)) == [reference, three, two, one]
    begun = [int(model) for model in re.findall(r"\] model (\d+) · ", ada.said)]
    assert begun == [reference, three, two, one], "so they ran, one after another"

    ada.do("bundle", "export", "--benchmark", benchmark, "--data_uid", dataset, "--output", "models.tar")
    set_priority(one, 20)
    set_priority(three, 0)
    assert models_of(ada.do(*run)) == [reference, one, two, three]
    assert models_of(ada.do(*run, "--model", two, "--model", reference)) == [two, reference]

    server.stop()
    ada.do("bundle", "import", "models.tar", "--yes", "--offline")
    assert models_of(ada.do(*run, "--offline")) == [reference, three, two, one], "as it was when it was made"
