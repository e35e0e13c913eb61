"""A site that never reaches the server: bundles go in on a stick, metadata and scores come out as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from containers.small import write_cases, write_container
from containers.wheels import wheel
from medperf.manifest import Role
from peers.people import Parts, Person, add_account, log_in, open_benchmark, serve_file
from tutorials.path import EmbeddedServer


@dataclass
class World:
    """A server, its people on machines of their own, and the site's machine, which has no login and no network."""

    server: EmbeddedServer
    ada: Person
    committee: Person
    site: Person
    benchmark: int
    model: int

    def carry(self, name: str, *, back: bool = False) -> Path:
        """Copy a file between the online machine and the site."""
        there, here = (self.ada, self.site) if back else (self.site, self.ada)
        (there.machine / name).write_bytes((here.machine / name).read_bytes())
        return there.machine / name


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[World]:
    server = EmbeddedServer(tmp_path / "server")
    server.start()
    wheels = tmp_path / "index"
    wheels.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))

    def someone(name: str, *, is_admin: bool = False) -> Person:
        add_account(server, name, is_admin=is_admin)
        return log_in(Person(name, tmp_path / name, server.url, monkeypatch, capsys))

    committee, administrator, ada = someone("committee"), someone("admin", is_admin=True), someone("ada")
    benchmark = open_benchmark(committee, administrator, Parts.of(committee, server))
    model = packaged_model(committee, server, wheels)
    committee.do("model", "associate", "--benchmark_uid", benchmark, "--model_uid", model, "--yes")
    site = Person("site", tmp_path / "site", server.url, monkeypatch, capsys)
    site.machine.mkdir()
    try:
        yield World(server, ada, committee, site, benchmark, model)
    finally:
        if server.is_running:
            server.stop()


def packaged_model(owner: Person, server: EmbeddedServer, wheels: Path) -> int:
    """A model whose sandbox needs a package; its UID."""
    package = wheel(wheels)
    folder = write_container(owner.machine / "packaged", Role.MODEL, name="packaged")
    manifest = yaml.safe_load((folder / "mlcube.yaml").read_text())
    needed = {"name": f"{package.name}=={package.version}", "hashes": [f"sha256:{package.sha256[0]}"]}
    manifest["sandbox"]["packages"] = [needed]
    (folder / "mlcube.yaml").write_text(yaml.safe_dump(manifest))
    code = folder / "workspace" / "additional_files" / "main.py"
    code.write_text(f"import tiny\n{code.read_text()}")
    archive = folder.with_suffix(".tar.gz")
    owner.do("container", "pack", code.parent, "-o", archive)
    url = serve_file(server, archive)
    uid = owner.uid_of(owner.do("container", "submit", folder, "--additional_files", url, "--yes"))
    owner.do("container", "set-operational", uid, "--yes")
    return uid


def at_the_site(world: World, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """Type a command at the site while no server is there, nor the index that wheels come from."""
    assert not world.server.is_running
    with monkeypatch.context() as patched:
        patched.setenv("MEDPERF_OFFLINE", "1")
        patched.delenv("PIP_FIND_LINKS")
        return world.site.do(*arguments)


def prepared(world: World, do: Callable[..., str]) -> str:
    """Prepare data at the site; its generated UID."""
    cases = write_cases(world.site.machine / "raw")
    paths = ("--data_path", cases / "images", "--labels_path", cases / "labels")
    printed = do("dataset", "create", "--name", "ours", *paths, "--benchmark", world.benchmark)
    return printed.split("Generated UID: ")[1].split()[0]


def test_a_site_without_internet_prepares_takes_part_runs_and_submits_by_way_of_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, site, benchmark = world.ada, world.site, world.benchmark

    def do(*arguments: object) -> str:
        return at_the_site(world, monkeypatch, *arguments)

    # First trip: what is needed to prepare data and to ask.
    said = ada.do("bundle", "export", "--benchmark", benchmark, "--output", "first.tar")
    fingerprint = said.split("Fingerprint: ")[1].split()[0]
    world.server.stop()
    assert f"Fingerprint: {fingerprint}" in do("bundle", "import", world.carry("first.tar"), "--yes")
    uid = prepared(world, do)
    printed = do("dataset", "export", "--benchmark", benchmark, "--data_uid", uid, "-o", "ask.yaml", "--yes")
    asked = yaml.safe_load((site.machine / "ask.yaml").read_text())
    assert asked["taking_part"]["summary"]["metrics"]["auc"] == 0.015
    assert "raw" not in (site.machine / "ask.yaml").read_text()
    assert f"generated_uid: {uid}" in printed
    # Where the server can be reached.
    world.server.start()
    printed = ada.do("dataset", "submit", "--from", world.carry("ask.yaml", back=True), "--yes")
    dataset = ada.uid_of(printed.replace("Registered as OPERATION. ", ""))
    assert "is PENDING" in printed
    ada.try_to("bundle", "export", "--benchmark", benchmark, "--data_uid", dataset, "--output", "second.tar")
    assert (ada.code, "PENDING" in ada.said, (ada.machine / "second.tar").exists()) == (15, True, False)
    world.committee.do("association", "approve", "--benchmark_uid", benchmark, "--data_uid", dataset)
    # Second trip: what is needed to run every model.
    ada.do("bundle", "export", "--benchmark", benchmark, "--data_uid", dataset, "--output", "second.tar")
    world.server.stop()
    printed = do("bundle", "import", world.carry("second.tar"), "--yes")
    assert f"is dataset {dataset} there" in printed
    printed = do("benchmark", "run", "--benchmark", benchmark, "--data_uid", dataset)
    assert "0 failed" in printed
    assert "Total number of models: 2" in printed
    name = f"b{benchmark}m{world.model}d{dataset}"
    printed = do("result", "export", "--all", "--output", "scores.yaml", "--yes")
    assert f"{name}: this is all that will be written" in printed
    # Back.
    world.server.start()
    scores = world.carry("scores.yaml", back=True)
    printed = ada.do("result", "submit", "--from", scores, "--yes")
    assert f"{name} is accepted" in printed
    assert "are seen by you and by the benchmark's owner" in printed
    listed = json.loads(ada.do("result", "ls", "--json"))
    assert {(one["model_id"], one["dataset_id"]) for one in listed} >= {(world.model, dataset)}
    assert len(listed) == 2
    # Again, on this or another machine: what was accepted stands.
    printed = ada.do("result", "submit", "--from", scores, "--yes")
    assert printed.count("was accepted before") == 2


def test_what_is_carried_is_only_the_owners_to_submit_and_only_as_it_was_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, site, benchmark = world.ada, world.site, world.benchmark
    cases = write_cases(ada.machine / "raw")
    paths = ("--data_path", cases / "images", "--labels_path", cases / "labels")
    uid = (
        ada.do("dataset", "create", "--name", "ours", *paths, "--benchmark", benchmark)
        .split("UID: ")[1]
        .split()[0]
    )
    ada.do("dataset", "submit", "--data_uid", uid, "--yes")
    ada.do("dataset", "associate", "--benchmark_uid", benchmark, "--data_uid", uid, "--yes")
    world.committee.do("association", "approve", "--benchmark_uid", benchmark, "--data_uid", 1)
    # Written where the server can be reached, too.
    ada.try_to("result", "export", "--all", "--output", "scores.yaml")
    assert (ada.code, (ada.machine / "scores.yaml").exists()) == (3, False)
    ada.do("result", "export", "--all", "--output", "scores.yaml", "--yes")
    ada.try_to("result", "export", "--all", "--output", "scores.yaml", "--yes")
    assert (ada.code, "is there already" in ada.said) == (2, True)
    text = (ada.machine / "scores.yaml").read_text()
    assert text.startswith("# Written by MedPerf, to be carried")

    def refused(content: str, person: Person = ada) -> tuple[int, str]:
        (person.machine / "other.yaml").write_text(content)
        person.try_to("result", "submit", "--from", "other.yaml", "--yes")
        return person.code, person.said

    assert refused(text.replace("auc: 0.015", "auc: 0.999"))[0] == 8
    assert "was altered after it was written" in ada.said
    assert refused(text.replace("format: 1", "format: 2"))[0] == 2
    assert refused("a: [")[0] == 2
    assert refused("- 1")[0] == 2
    # Its scores are not somebody else's to submit, whatever they know.
    code, said = refused(text, world.committee)
    assert (code, "Only its owner may do this with dataset 1" in said) == (6, True)
    # Data that is registered otherwise, or an approval that has ended, as with a local result.
    world.committee.do("association", "withdraw", "--benchmark_uid", benchmark, "--data_uid", 1, "--yes")
    code, said = refused(text)
    assert (code, "WITHDRAWN" in said) == (15, True)
    assert json.loads(ada.do("result", "ls", "--json")) == []
    ada.try_to("dataset", "submit", "--from", "scores.yaml", "--yes")
    assert (ada.code, "holds no dataset" in ada.said) == (2, True)
    site.try_to("benchmark", "ls", "--offline")
    assert (site.code, "No bundle" in site.said) == (2, True)
