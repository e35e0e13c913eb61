"""Trying containers out, and the compatibility test of a model: real containers, a real server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest
import yaml

from client.conftest import NewPerson
from containers.small import write_cases, write_container
from medperf.cli.main import run
from medperf.home import Home
from medperf.journal import Journal
from medperf.manifest import Role
from medperf.scratch import scratch_folder
from medperf_contracts.packing import pack
from peers.people import Parts, Person, open_benchmark, register_container
from tutorials.path import EmbeddedServer

MEDPERF = str(Path(sys.executable).with_name("medperf"))
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def bench(home_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three containers and raw data, on a machine whose server is not there."""
    monkeypatch.setenv("MEDPERF_SERVER", NOBODY)
    monkeypatch.setenv("MEDPERF_PLATFORM", "sandbox")
    here = Path.cwd()
    for role in Role:
        write_container(here / role, role)
    write_cases(here / "cases")
    return here


ALL = ("--container", "preparation", "--container", "model", "--container", "metrics")
OWN_DATA = ("--data_path", "cases/images", "--labels_path", "cases/labels")


def left_over() -> list[Path]:
    """What a trial left in the local folder beside records and logs."""
    home = Home.at(NOBODY).root
    folders = [path for name in ("scratch", "datasets", "results") for path in (home / name).glob("[!.]*")]
    return folders + [path for path in (home / "runs").glob("*/*") if path.is_dir()]


# On this machine


def test_three_local_containers_on_own_data_need_no_server_and_leave_nothing(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["test", "run", *ALL, *OWN_DATA]) == 0
    printed, said = capsys.readouterr()
    shown = yaml.safe_load(printed)
    assert shown["metrics"] == {"auc": 0.015, "counts": {"cases": 3}}
    assert shown["statistics"] == {"cases": 3, "mean": None}
    assert list(shown["seconds"]) == ["prepare", "sanity_check", "statistics", "infer", "evaluate"]
    assert "[5/5] evaluate · small-metrics" in said
    assert "Container of model runs in sandbox (MEDPERF_PLATFORM=sandbox)\n" in said
    assert left_over() == []
    assert {run.purpose for run in Journal(Home.at(NOBODY).journal).runs()} == {"test run"}


def test_what_each_task_wrote_is_kept_where_it_is_asked_for(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["test", "run", *ALL, *OWN_DATA, "--keep", "kept", "--json"]) == 0
    printed, said = capsys.readouterr()
    assert json.loads(printed)["metrics"]["auc"] == 0.015
    assert "is kept in kept" in said
    assert (bench / "kept" / "prepare" / "output_path" / "case0.txt").read_text() == "ONE"
    assert (bench / "kept" / "infer" / "output_path" / "predictions.csv").read_text().count("\n") == 2
    assert (
        yaml.safe_load((bench / "kept" / "evaluate" / "output_path" / "results.yaml").read_text())["auc"] == 0.015
    )
    assert left_over() == []
    assert run(["test", "run", *ALL, *OWN_DATA, "--keep", "kept"]) == 2
    assert "is there already and not empty" in capsys.readouterr().err


@pytest.mark.parametrize("kept", ["cases/paths.yaml/x", "cases/paths.yaml", "k" * 300])
def test_outputs_that_cannot_be_kept_where_it_is_asked_for_are_said_before_anything_runs(
    bench: Path, capsys: pytest.CaptureFixture[str], kept: str
) -> None:
    assert run(["test", "run", *ALL, *OWN_DATA, "--keep", kept]) == 2
    assert "Give a new folder" in capsys.readouterr().err
    assert Journal(Home.at(NOBODY).journal).runs() == []


@pytest.mark.parametrize(
    "limit",
    [
        *(("--memory_limit", value) for value in ("nan", "inf", "1e300", "0")),
        *(("--cpus", value) for value in ("nan", "inf", "-1")),
        *(("--time_limit", value) for value in ("nan", "inf", "1e300")),
    ],
    ids="=".join,
)
def test_a_limit_that_limits_nothing_is_a_usage_error(
    bench: Path, capsys: pytest.CaptureFixture[str], limit: tuple[str, str]
) -> None:
    assert run(["test", "run", *ALL, *OWN_DATA, *limit]) == 2
    assert "is not in the range" in capsys.readouterr().err


def test_demo_data_from_a_file_is_used_and_its_hash_said(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = pack(bench / "cases", bench / "demo.tar.gz")
    assert run(["test", "run", *ALL, "--demo_data", "demo.tar.gz"]) == 0
    printed, said = capsys.readouterr()
    assert yaml.safe_load(printed)["metrics"]["counts"] == {"cases": 3}
    assert f"Demo data demo.tar.gz has the SHA-256 {digest}" in said
    assert left_over() == []


def test_a_container_that_fails_ends_the_trial_and_keeps_what_there_was(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_container(bench / "broken", Role.METRICS, fault="evaluate")
    command = ["test", "run", *ALL[:4], "--container", "broken", *OWN_DATA, "--keep", "kept"]
    assert run(command) == 7
    said = capsys.readouterr().err
    assert "The task 'evaluate' ended with exit code 3" in said
    log = Path(said.partition("The whole log: ")[2].split("\n")[0])
    assert "evaluate begins" in log.read_text()
    assert sorted(path.name for path in (bench / "kept").iterdir()) == ["infer", "prepare", "statistics"]
    assert left_over() == []


def test_a_model_that_writes_no_predictions_is_told_as_the_models_failure(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_container(bench / "broken", Role.MODEL, fault="no predictions")
    assert run(["test", "run", *ALL[:2], "--container", "broken", *ALL[4:], *OWN_DATA]) == 7
    assert "The model small-model ended well but wrote no predictions" in capsys.readouterr().err


def test_a_local_container_sees_what_would_be_registered_and_no_more(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its parameters file brings its folder along: what lies beside it here would lie beside it nowhere else."""
    main = bench / "model" / "workspace" / "additional_files" / "main.py"
    main.write_text(
        "import os, sys\nfrom pathlib import Path\n"
        "given = dict(word[2:].split('=', 1) for word in sys.argv[2:])\n"
        "found = sorted(os.listdir(Path(given['parameters_file']).parent))\n"
        "(Path(given['output_path']) / 'predictions.csv').write_text('\\n'.join(f'{name},1' for name in found))\n"
    )
    (bench / "model" / "workspace" / "secret.txt").write_text("of somebody")
    assert run(["test", "run", *ALL, *OWN_DATA, "--keep", "kept"]) == 0
    predictions = (bench / "kept" / "infer" / "output_path" / "predictions.csv").read_text()
    assert predictions == "additional_files,1\nparameters.yaml,1"


def test_additional_files_beside_the_manifest_are_found_too_and_links_among_them_refused(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = bench / "model" / "additional_files"
    (bench / "model" / "workspace" / "additional_files").rename(beside)
    assert run(["test", "run", *ALL, *OWN_DATA]) == 0
    (beside / "link").symlink_to("/etc/passwd")
    assert run(["test", "run", *ALL, *OWN_DATA]) == 2
    assert "cannot be packed" in capsys.readouterr().err
    assert left_over() == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (ALL, 2, "There is no data to run on"),
        ((*ALL, "--data_path", "cases/images"), 2, "go together"),
        ((*ALL, *OWN_DATA, "--demo_data", "x"), 2, "There is demo data and own data"),
        ((*ALL, "--demo_data", "nowhere.tar.gz"), 2, "There is no file nowhere.tar.gz"),
        ((*ALL, "--data_path", "none", "--labels_path", "cases/labels"), 2, "none cannot be read"),
        ((*ALL, "--data_path", "cases/images", "--labels_path", "empty"), 2, "empty is empty"),
        ((*ALL[:4], *OWN_DATA), 2, "No container is named for metrics"),
        (("--container", "nowhere", *OWN_DATA), 2, "There is no file or folder nowhere"),
        (("--container", "empty", *OWN_DATA), 2, "mlcube.yaml cannot be read"),
        ((*ALL, "--container", "model", *OWN_DATA), 2, "Two containers are to be the model"),
        (
            ("--container", "metrics=model", *OWN_DATA),
            10,
            "cannot be a benchmark's metrics container: tasks.evaluate",
        ),
        (("--container", "both", *ALL, *OWN_DATA), 2, "can be model or metrics"),
    ],
)
def test_what_cannot_be_tried_is_said_before_anything_runs(
    bench: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, says: str
) -> None:
    (bench / "empty").mkdir()
    write_container(bench / "both", Role.MODEL)
    manifest = yaml.safe_load((bench / "both" / "mlcube.yaml").read_text())
    metrics = yaml.safe_load((bench / "metrics" / "mlcube.yaml").read_text())
    manifest["tasks"] |= metrics["tasks"]
    (bench / "both" / "mlcube.yaml").write_text(yaml.safe_dump(manifest))
    assert run(["test", "run", *words]) == code
    said = capsys.readouterr().err
    assert (says in said, "What to do: " in said) == (True, True), said
    assert left_over() == []


def test_a_container_of_several_roles_plays_the_one_that_it_is_given(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = yaml.safe_load((bench / "model" / "mlcube.yaml").read_text())
    manifest["tasks"] |= yaml.safe_load((bench / "metrics" / "mlcube.yaml").read_text())["tasks"]
    (bench / "model" / "mlcube.yaml").write_text(yaml.safe_dump(manifest))
    named = ("--container", "preparation", "--container", "model=model", "--container", "metrics")
    assert run(["test", "run", *named, *OWN_DATA]) == 0


def test_a_trial_that_was_killed_leaves_nothing_that_the_next_does_not_remove(bench: Path) -> None:
    write_container(bench / "slow", Role.MODEL, fault="writes for 60")
    words = ["test", "run", *ALL[:2], "--container", "slow", *ALL[4:], *OWN_DATA]
    killed = subprocess.Popen([MEDPERF, *words], stderr=subprocess.PIPE, text=True)
    assert killed.stderr is not None
    for line in killed.stderr:
        if "infer begins" in line:
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stderr.close()
    assert left_over() != []
    assert run(["test", "run", *ALL, *OWN_DATA]) == 0
    deadline = time.monotonic() + 10
    while left_over() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_over() == []


def test_a_folder_of_a_command_that_is_at_work_is_not_removed_by_another(bench: Path) -> None:
    home = Home.at(NOBODY)
    with scratch_folder(home) as first, scratch_folder(home) as second:
        assert first != second
        assert first.is_dir()
    assert not first.exists()


# With a server


@pytest.fixture
def committee(person: NewPerson) -> Person:
    return person("committee")


@pytest.fixture
def administrator(person: NewPerson) -> Person:
    return person("administrator", is_admin=True)


@pytest.fixture
def parts(committee: Person, embedded: EmbeddedServer) -> Parts:
    return Parts.of(committee, embedded)


@pytest.fixture
def posted(embedded: EmbeddedServer) -> Callable[[], int]:
    """How many requests so far changed something: the server's log has a line for each."""

    def count() -> int:
        lines = (embedded.home / "server.log").read_text().splitlines()
        changes = ("POST", "PATCH")
        return sum(json.loads(line).get("method") in changes for line in lines)

    return count


def test_local_and_registered_containers_mix_and_the_benchmark_gives_the_rest(
    committee: Person, administrator: Person, parts: Parts, person: NewPerson, posted: Callable[[], int]
) -> None:
    uid = open_benchmark(committee, administrator, parts)
    owner = person("modelowner")
    write_container(owner.machine / "mine", Role.MODEL)
    before = posted()
    shown = yaml.safe_load(owner.do("test", "run", "--container", "mine", "--benchmark", uid))
    assert shown["metrics"] == {"auc": 0.015, "counts": {"cases": 3}}
    assert "infer · small-model" in owner.said
    mixed = ("--container", "mine", "--container", parts.preparation, "--container", f"metrics={parts.metrics}")
    write_cases(owner.machine / "cases", ("eleven chars", "x"))
    own = ("--data_path", "cases/images", "--labels_path", "cases/labels")
    assert yaml.safe_load(owner.do("test", "run", *mixed, *own))["metrics"]["counts"] == {"cases": 2}
    url = yaml.safe_load(owner.do("test", "run", *mixed, "--demo_data", parts.demo_data_url))
    assert url["metrics"]["counts"] == {"cases": 3}
    assert posted() == before, "nothing was sent"
    assert owner.do("dataset", "ls", "--local").startswith("There are no datasets")


def test_a_benchmark_without_demo_data_needs_data(committee: Person, administrator: Person, parts: Parts) -> None:
    uid = open_benchmark(committee, administrator, parts, demo_data_url=None)
    committee.try_to("test", "run", "--benchmark", uid)
    assert (committee.code, "has no demo data" in committee.said) == (2, True)
    committee.try_to("test", "run", "--container", 99_999, "--benchmark", uid, "--demo_data", parts.demo_data_url)
    assert (committee.code, "There is no container 99999" in committee.said) == (6, True)


# A model asks to take part


def summary_shown(text: str) -> dict[str, Any]:
    """The request that a command printed before it sent it."""
    block = text.replace("\r", "").partition(":\n\n")[2].partition("\n\n")[0]
    shown: dict[str, Any] = yaml.safe_load(block)
    return shown


def test_a_model_is_tested_its_metrics_shown_asked_about_sent_and_decided_with_a_reason(
    committee: Person, administrator: Person, parts: Parts, person: NewPerson, embedded: EmbeddedServer
) -> None:
    benchmark = open_benchmark(committee, administrator, parts)
    owner = person("modelowner")
    model = register_container(owner, embedded, Role.MODEL)
    command = f"medperf model associate --benchmark_uid {benchmark} --model_uid {model}"
    with owner.at_a_terminal(command) as terminal:
        terminal.expect_exact("This request will be sent to")
        terminal.expect_exact(f"take part in benchmark {benchmark}")
        shown = summary_shown(terminal.before)
        terminal.expect_exact("[y/N]:")
        terminal.sendline("y")
        terminal.expect(r"Association (\d+) is PENDING\.")
        uid = int(terminal.match[1])
        terminal.expect(pexpect.EOF)
    assert shown["summary"]["metrics"] == {"auc": 0.015, "counts": {"cases": 3}}
    assert set(shown["summary"]) == {"metrics", "started_at", "finished_at", "seconds"}
    seen_by_committee = json.loads(committee.do("association", "view", uid, "--json"))
    assert seen_by_committee["summary"] == shown["summary"]
    assert "It was asked for already." in owner.do(*command.split()[1:])

    # What waits for a decision waits for the side that did not ask.
    assert [one["id"] for one in json.loads(committee.do("association", "ls", "--pending", "--json"))] == [uid]
    assert owner.do("association", "ls", "--pending") == "Nothing waits for your decision.\n"
    owner.try_to("association", "approve", uid)
    assert owner.code == 6
    pair = ("--benchmark_uid", benchmark, "--model_uid", model)
    assert "is REJECTED." in committee.do("association", "reject", *pair, "--reason", "Too slow.")
    assert json.loads(owner.do("association", "view", uid, "--json"))["reason"] == "Too slow."
    assert committee.do("association", "ls", "--pending") == "Nothing waits for your decision.\n"
    assert "PENDING" in owner.do(*command.split()[1:], "--yes")
    assert "is APPROVED." in committee.do("association", "approve", *pair, "--reason", "Now it is fine.")


def test_a_committee_invites_a_model_and_its_owner_decides(
    committee: Person, administrator: Person, parts: Parts, person: NewPerson, embedded: EmbeddedServer
) -> None:
    benchmark = open_benchmark(committee, administrator, parts, demo_data_url=None)
    owner = person("modelowner")
    model = register_container(owner, embedded, Role.MODEL)
    pair = ("--benchmark_uid", benchmark, "--model_uid", model)
    printed = committee.do("model", "associate", *pair, "--yes")
    assert "there is no compatibility test" in committee.said
    assert summary_shown(printed) == {"benchmark_id": benchmark, "model_id": model}
    (waiting,) = json.loads(owner.do("association", "ls", "--pending", "--json"))
    assert (waiting["part_id"], waiting["summary"]) == (model, {})
    assert committee.do("association", "ls", "--pending") == "Nothing waits for your decision.\n"
    assert "is APPROVED." in owner.do("association", "approve", waiting["id"])


def test_a_model_that_fails_on_the_demo_data_asks_for_nothing(
    committee: Person, administrator: Person, parts: Parts, person: NewPerson, embedded: EmbeddedServer
) -> None:
    benchmark = open_benchmark(committee, administrator, parts)
    owner = person("modelowner")
    model = register_container(owner, embedded, Role.MODEL, fault="infer")
    owner.try_to("model", "associate", "-b", benchmark, "-m", model, "--yes")
    assert (owner.code, "The task 'infer' ended with exit code 3" in owner.said) == (7, True)
    assert json.loads(owner.do("association", "ls", "--json")) == []


def test_what_the_server_would_refuse_is_refused_before_anything_runs(
    committee: Person, administrator: Person, parts: Parts, person: NewPerson, embedded: EmbeddedServer
) -> None:
    benchmark = open_benchmark(committee, administrator, parts)
    owner = person("modelowner")
    model = register_container(owner, embedded, Role.MODEL)

    def refused(benchmark_uid: int, model_uid: int, *, by: Person, code: int, says: str) -> None:
        by.try_to("model", "associate", "-b", benchmark_uid, "-m", model_uid, "--yes")
        assert (by.code, says in by.said) == (code, True), by.said

    refused(benchmark, parts.metrics, by=owner, code=2, says="is no model: tasks.infer is missing")
    refused(benchmark, parts.reference_model, by=committee, code=2, says="is the reference model of benchmark")
    other = person("other")
    refused(
        benchmark,
        model,
        by=other,
        code=6,
        says=f"Only its owner or the benchmark's owner may do this with model {model}.",
    )
    refused(99_999, model, by=owner, code=6, says="There is no benchmark 99999")
    owner.do("container", "update", model, "--invalid", "--yes")
    refused(benchmark, model, by=owner, code=15, says=f"Model {model} ({owner.name}) is marked as not valid")
    owner.do("container", "update", model, "--valid", "--yes")
    committee.do("benchmark", "update", benchmark, "--invalid", "--yes")
    refused(benchmark, model, by=owner, code=15, says=f"Benchmark {benchmark} ({committee.name}) is marked")
    for somebody in (owner, other):
        local = next(place for place in (somebody.machine / "home").iterdir() if place.is_dir())
        assert Journal(Home("", local).journal).runs() == []


def test_models_are_the_containers_with_a_models_task(
    committee: Person, parts: Parts, embedded: EmbeddedServer
) -> None:
    listed = json.loads(committee.do("model", "ls", "--mine", "--json"))
    assert [one["id"] for one in listed] == [parts.reference_model]
    assert yaml.safe_load(committee.do("model", "view", parts.reference_model))["id"] == parts.reference_model
    committee.try_to("model", "view", parts.metrics)
    assert (committee.code, "is no model" in committee.said) == (2, True)
