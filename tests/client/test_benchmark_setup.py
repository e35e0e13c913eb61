"""Registering a benchmark: its file, what is checked of it, who decides about it, and what may change."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pexpect
import pytest
import yaml

from client.conftest import NewPerson, Serve
from containers.small import Shelf, write_cases
from medperf.cli.main import run
from medperf.manifest import Role
from medperf_contracts.packing import pack
from peers import answers
from peers.people import Parts, Person, register_container, serve_file, write_benchmark
from peers.scripted_peer import Asked, Reply
from tutorials.path import EmbeddedServer


@pytest.fixture
def committee(person: NewPerson) -> Person:
    return person("committee")


@pytest.fixture
def parts(committee: Person, embedded: EmbeddedServer) -> Parts:
    return Parts.of(committee, embedded)


def said(parts: Parts, **changes: object) -> dict[str, object]:
    """What a benchmark's file says."""
    uids = {"preparation": parts.preparation, "reference_model": parts.reference_model, "metrics": parts.metrics}
    return {"name": "chest", **uids, "demo_data_url": parts.demo_data_url, **changes}


def test_a_benchmark_is_set_up_decided_and_then_seen_by_everybody(
    committee: Person, person: NewPerson, embedded: EmbeddedServer, parts: Parts
) -> None:
    file = write_benchmark(committee, **said(parts, description="Finds.\nMore.", public_scores=True))
    with committee.at_a_terminal(f"medperf benchmark submit {file}") as terminal:
        terminal.expect_exact("This is all that will be sent to")
        terminal.expect_exact("Register this benchmark? [y/N]:")
        shown = yaml.safe_load(terminal.before.partition("\r\n\r\n")[2])
        terminal.sendline("y")
        terminal.expect(r"Server UID: (\d+)")
        uid = int(terminal.match[1])
        terminal.expect_exact(f"medperf benchmark set-operational {uid}")
        terminal.expect(pexpect.EOF)
    archive = next(committee.machine.glob("demo-*.tar.gz"))
    assert shown == {
        "name": "chest",
        "description": "Finds.\nMore.",
        "preparation_id": parts.preparation,
        "reference_model_id": parts.reference_model,
        "metrics_id": parts.metrics,
        "demo_data_url": parts.demo_data_url,
        "demo_data_hash": archive_hash(archive),
        "public_scores": True,
    }
    again = committee.do("benchmark", "submit", file, "--yes")
    assert committee.uid_of(again) == uid
    assert "as 'chest' (DEVELOPMENT): that one stands" in again

    stranger, administrator = person("stranger"), person("administrator", is_admin=True)
    administrator.try_to("benchmark", "approve", uid)
    assert (administrator.code, "is still in development" in administrator.said) == (6, True)
    with committee.at_a_terminal(f"medperf benchmark set-operational {uid}") as terminal:
        terminal.expect_exact("put before the administrators")
        terminal.expect_exact("It cannot be undone. [y/N]:")
        terminal.sendline("y")
        terminal.expect_exact("is in OPERATION.")
        terminal.expect(pexpect.EOF)
    assert "is in operation already" in committee.do("benchmark", "set-operational", uid)
    assert uid in pending(administrator)
    for nobody in (committee, stranger):
        nobody.try_to("benchmark", "approve", uid)
        assert nobody.code == 6
    assert "is REJECTED." in administrator.do("benchmark", "reject", uid)
    assert uid not in pending(administrator)
    stranger.try_to("benchmark", "view", uid)
    assert stranger.code == 6
    assert f"of {committee.name} is APPROVED." in administrator.do("benchmark", "approve", uid)
    assert json.loads(stranger.do("benchmark", "view", uid, "--json"))["public_scores"] is True
    administrator.try_to("benchmark", "reject", uid)
    assert (administrator.code, "is APPROVED already" in administrator.said) == (6, True)


def test_a_benchmark_of_the_same_parts_with_other_rules_is_refused_and_each_difference_is_named(
    committee: Person, parts: Parts
) -> None:
    first = write_benchmark(committee, **said(parts, public_scores=True))
    uid = committee.uid_of(committee.do("benchmark", "submit", first, "--yes"))
    second = write_benchmark(committee, **said(parts, name="other", public_scores=False))
    printed = committee.try_to("benchmark", "submit", second, "--yes")
    assert (committee.code, "Server UID" in printed) == (6, False)
    assert f"benchmark {uid} (chest), DEVELOPMENT. It stands as it is" in committee.said
    assert "public_scores: registered is true, you gave false" in committee.said
    assert 'name: registered is "chest", you gave "other"' in committee.said
    assert "demo_data_url: " not in committee.said
    assert json.loads(committee.do("benchmark", "view", uid, "--json"))["public_scores"] is True


def pending(person: Person) -> list[int]:
    return [one["id"] for one in json.loads(person.do("benchmark", "ls", "--pending", "--json"))]


def archive_hash(archive: Path) -> str:
    folder = archive.with_suffix("").with_suffix("")
    return pack(folder, archive)


def test_pending_stands_alone(committee: Person) -> None:
    for command in ("benchmark ls --pending --approval approved", "association ls --pending --state approved"):
        committee.try_to(*command.split())
        assert (committee.code, "What to do: " in committee.said) == (2, True)


def refused(committee: Person, *, code: int, says: str, **file: object) -> None:
    """Submitting a benchmark is refused in these words, with something to do, and nothing is sent."""
    committee.try_to("benchmark", "submit", write_benchmark(committee, **file), "--yes")
    assert (committee.code, says in committee.said) == (code, True), committee.said
    assert "What to do: " in committee.said
    assert json.loads(committee.do("benchmark", "ls", "--mine", "--json")) == []


def test_a_file_that_says_too_much_or_too_little_is_refused_by_its_keys(committee: Person, parts: Parts) -> None:
    refused(committee, **said(parts, modle=3, extra=1), code=2, says="holds unknown keys: extra, modle.")
    assert (
        "A benchmark's file may say: name, description, docs_url, preparation, "
        in committee.try_to("benchmark", "submit", write_benchmark(committee, x=1)) + committee.said
    )
    refused(committee, **said(parts, metrics=None, name=None), code=2, says="does not say name, metrics.")
    refused(committee, **said(parts, metrics="three"), code=2, says="metrics must be a container's UID")
    refused(committee, **said(parts, metrics=True), code=2, says="metrics must be a container's UID")
    refused(committee, **said(parts, metrics=0), code=2, says="metrics_id: Input should be greater than or equal")
    refused(committee, **said(parts, name="x" * 200), code=2, says="name: String should have at most 128")
    refused(committee, **said(parts, public_scores="maybe"), code=2, says="public_scores: Input should be a valid")
    refused(committee, **said(parts, demo_data_url="a.tar.gz"), code=2, says="There is no file a.tar.gz")
    without = said(parts, demo_data_url=None, demo_data_hash="a" * 64)
    refused(committee, **without, code=2, says="says demo_data_hash, but not demo_data_url")
    for text, says in (("- a", "is not a mapping"), ("a: [", "is not valid YAML"), ("a: 1\na: 2", "comes twice")):
        (committee.machine / "b.yaml").write_text(text)
        committee.try_to("benchmark", "submit", "b.yaml")
        assert (committee.code, says in committee.said) == (2, True), committee.said


def test_a_container_that_cannot_play_its_role_is_refused(
    committee: Person, person: NewPerson, embedded: EmbeddedServer, parts: Parts
) -> None:
    swapped = said(parts, metrics=parts.reference_model)
    refused(
        committee, **swapped, code=10, says="cannot be a benchmark's metrics container: tasks.evaluate is missing"
    )
    refused(committee, **said(parts, metrics=99_999), code=6, says="There is no container 99999")
    other = person("other")
    hidden = other.uid_of(other.do(*in_development(other, embedded)))
    refused(committee, **said(parts, metrics=hidden), code=6, says=f"There is no container {hidden}")
    committee.do("container", "update", parts.metrics, "--invalid", "--yes")
    refused(committee, **said(parts), code=2, says="marked the container")


def in_development(owner: Person, embedded: EmbeddedServer) -> tuple[str, ...]:
    """The words that register a metrics container, and no more."""
    register_container(owner, embedded, Role.METRICS)
    folder = next(owner.machine.glob("metrics-*[!.gz]"))
    url = serve_file(embedded, folder.with_suffix(".tar.gz"))
    (folder / "workspace" / "parameters.yaml").write_text("other: 1\n")
    return ("container", "submit", str(folder), "--additional_files", url, "--yes")


def test_a_benchmark_of_containers_in_development_waits_for_them(
    committee: Person, embedded: EmbeddedServer, parts: Parts
) -> None:
    unready = committee.uid_of(committee.do(*in_development(committee, embedded)))
    printed = committee.do("benchmark", "submit", write_benchmark(committee, **said(parts, metrics=unready)), "-y")
    assert "is in development: the benchmark waits for it to be in operation" in committee.said
    uid = committee.uid_of(printed)
    committee.try_to("benchmark", "set-operational", uid, "--yes")
    assert (committee.code, f"container {unready} is still in development" in committee.said) == (6, True)
    committee.do("container", "set-operational", unready, "--yes")
    committee.do("benchmark", "set-operational", uid, "--yes")


def test_demo_data_that_cannot_be_used_is_refused(
    committee: Person, embedded: EmbeddedServer, parts: Parts
) -> None:
    refused(
        committee, **said(parts, demo_data_hash="a" * 64), code=8, says=f"{'a' * 64} is registered as demo_data"
    )
    refused(committee, **said(parts, demo_data_url="/assets/none"), code=6, says="/assets/none cannot be fetched")
    for paths, says in (
        (None, "has no paths.yaml at its top"),
        ("- images", "must be a mapping"),
        ("data_path: images", "does not say labels_path"),
        ("data_path: ../images\nlabels_path: labels", "leads out of the archive"),
        ("data_path: images\nlabels_path: /etc", "leads out of the archive"),
        ("data_path: images\nlabels_path: none", "is not in the archive"),
    ):
        folder = write_cases(committee.machine / f"cases-{abs(hash(says + str(paths)))}")
        (folder / "paths.yaml").unlink()
        if paths is not None:
            (folder / "paths.yaml").write_text(paths)
        pack(folder, folder.with_suffix(".tar.gz"))
        url = serve_file(embedded, folder.with_suffix(".tar.gz"))
        refused(committee, **said(parts, demo_data_url=url), code=10, says=says)
    with tarfile.open(committee.machine / "link.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("images")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    url = serve_file(embedded, committee.machine / "link.tar.gz")
    refused(committee, **said(parts, demo_data_url=url), code=10, says="is a link; only files and folders")
    assert [path for path in (committee.machine / "home").rglob("scratch/*") if path.is_dir()] == []


def test_no_demo_data_is_said_to_mean_no_compatibility_test(committee: Person, parts: Parts) -> None:
    file = write_benchmark(committee, **said(parts, demo_data_url=None))
    printed = committee.do("benchmark", "submit", file, "--yes")
    assert "without a compatibility test" in committee.said
    shown = json.loads(committee.do("benchmark", "view", committee.uid_of(printed), "--json"))
    assert shown["demo_data_url"] is shown["demo_data_hash"] is None


def test_a_container_whose_hashes_are_not_right_is_refused(serve: Serve, tmp_path: Path) -> None:
    shelf = Shelf()
    views = [shelf.register(number, role) for number, role in enumerate(Role, 1)]
    altered = views[1].model_copy(update={"parameters": "fault: other\n"})
    replies = {f"GET /api/v1/containers/{view.id}": Reply.of(view.model_dump(mode="json")) for view in views}
    replies["GET /api/v1/containers/2"] = Reply.of(altered.model_dump(mode="json"))
    assets = {f"GET {url}": Reply(200, content) for url, content in shelf.files.items()}
    peer = serve({**replies, **assets})
    file = tmp_path / "b.yaml"
    file.write_text("{name: x, preparation: 1, reference_model: 2, metrics: 3}")
    assert run(["benchmark", "submit", str(file), "--yes"]) == 8
    assert not [asked for asked in peer.asked if asked.method == "POST"]


# Changes


def test_what_may_change_of_a_benchmark_changes_and_nothing_else(
    committee: Person, embedded: EmbeddedServer, parts: Parts
) -> None:
    file = write_benchmark(committee, **said(parts, docs_url="https://example.org/docs"))
    uid = committee.uid_of(committee.do("benchmark", "submit", file, "--yes"))
    archive = next(committee.machine.glob("demo-*.tar.gz"))
    moved = archive.rename(committee.machine / "moved.tgz")
    url = serve_file(embedded, moved)
    printed = committee.do(
        "benchmark",
        "update",
        uid,
        "--description",
        "New.",
        "--docs_url",
        "",
        "--demo_data",
        url,
        "--invalid",
        "-y",
    )
    assert yaml.safe_load(printed.partition("\n\n")[2].partition("\n\n")[0]) == {
        "description": "New.", "docs_url": None, "demo_data_url": url, "is_valid": False,
    }  # fmt: skip
    shown = json.loads(committee.do("benchmark", "view", uid, "--json"))
    assert (shown["description"], shown["docs_url"], shown["demo_data_url"]) == ("New.", None, url)
    (committee.machine / "other.tar.gz").write_bytes(b"other")
    other = serve_file(embedded, committee.machine / "other.tar.gz")
    committee.try_to("benchmark", "update", uid, "--demo_data", other, "--yes")
    assert (committee.code, "is registered as its demo data" in committee.said) == (8, True)
    committee.try_to("benchmark", "update", uid)
    assert committee.code == 2


def test_a_benchmarks_change_that_lost_a_race_is_refused(committee: Person, parts: Parts) -> None:
    uid = committee.uid_of(committee.do("benchmark", "submit", write_benchmark(committee, **said(parts)), "--yes"))
    command = f"medperf benchmark update {uid} --description mine; echo ended $?"
    with committee.at_a_terminal(command) as terminal:
        terminal.expect_exact("Change this benchmark? [y/N]:")
        committee.do("benchmark", "update", uid, "--invalid", "--yes")
        terminal.sendline("y")
        terminal.expect_exact(f"medperf benchmark view {uid}")
        terminal.expect_exact("ended 6")
        terminal.expect(pexpect.EOF)
    assert json.loads(committee.do("benchmark", "view", uid, "--json"))["description"] == ""


def test_what_the_server_has_of_a_dataset_changes_with_the_version_that_was_shown(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {"version": 4}

    def change(asked: Asked) -> Reply:
        if asked.headers["if-match"] != f'"{state["version"]}"':
            return Reply.problem(412, "precondition_failed", "Dataset 3 is at version 5, not 4.")
        return Reply.of(answers.dataset(3, version=5, **asked.json))

    peer = serve(
        {
            "GET /api/v1/datasets/3": Reply.of(answers.dataset(3, version=4)),
            "PATCH /api/v1/datasets/3": change,
        }
    )
    assert run(["dataset", "update", "3", "--location", "Ward 2", "--invalid", "--yes"]) == 0
    assert peer.asked[-1].json == {"location": "Ward 2", "is_valid": False}
    assert "it is at version 5 now" in capsys.readouterr().out
    state["version"] = 5
    assert run(["dataset", "update", "3", "--description", "x", "--yes"]) == 6
    assert "What to do: Look at what it is now (medperf dataset view 3)" in capsys.readouterr().err
    assert run(["dataset", "update", "3", "--description", "x"]) == 3
    assert run(["dataset", "update", "3"]) == 2
