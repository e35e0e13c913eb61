"""Running models on a dataset: by real containers, found again by hashes, and through the commands' own words."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from containers.small import Site, archive_of, manifest_of, prepared_dataset
from medperf import safe_yaml
from medperf.api import Gateway
from medperf.causes import Cause
from medperf.cli.main import run
from medperf.datasets import LocalDataset, alone_with, find_dataset
from medperf.engines.base import Limits
from medperf.errors import Busy, ContainerFailed, IntegrityError, NotApproved, PartlyDone, Refused, StoreChanged
from medperf.evaluation import Evaluated, evaluate, find_evaluation
from medperf.home import Home
from medperf.journal import Journal, RunState
from medperf.manifest import Role
from medperf.preferences import Preferences
from medperf.results import find_result, is_submitted, local_results, name_result, record_submission
from medperf.tasks import TaskOutputs, check_predictions
from peers.benchmark_server import BenchmarkServer
from peers.scripted_peer import Reply, ScriptedPeer


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset prepared once by the real container; tests work on copies."""
    return prepared_dataset(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def site(tmp_path: Path, dataset_folder: Path) -> Site:
    site = Site(tmp_path)
    site.prepared = dataset_folder
    return site


def prepared(site: Site) -> LocalDataset:
    """The prepared dataset, on this test's machine."""
    shutil.copytree(site.prepared, site.home.datasets / site.prepared.name)
    return find_dataset(site.home, site.prepared.name)


def evaluated(
    site: Site,
    dataset: LocalDataset,
    *,
    model: str = "",
    metrics: str = "",
    wall_seconds: float = 30,
    **options: bool,
) -> Evaluated:
    return evaluate(
        site.runner(wall_seconds=wall_seconds),
        dataset,
        site.container(2, Role.MODEL, fault=model),
        site.container(3, Role.METRICS, fault=metrics),
        purpose="benchmark run",
        on_step=site.steps.append,
        **options,
    )


def runs_of(site: Site, task: str) -> list[RunState]:
    return [one.state for one in site.journal.runs() if one.task == task]


# The evaluation


def test_a_model_is_scored_by_the_metrics_on_the_prepared_data(site: Site) -> None:
    dataset = prepared(site)
    found = evaluated(site, dataset)
    assert not found.from_cache
    assert found.evaluation.metrics == {"auc": (3 + 5 + 7) / 1000, "counts": {"cases": 3}}
    assert (found.evaluation.engine, found.evaluation.is_partial) == ("sandbox", False)
    assert found.evaluation.dataset_hash == dataset.data_hash
    assert found.evaluation.model_hash == site.shelf.views[2].hash
    assert found.evaluation.started_at <= found.evaluation.finished_at
    assert site.steps == ["hash", "infer", "evaluate"]
    assert "infer: secret of a patient" in site.lines
    assert list(site.home.runs.glob("*/work")) == []


def test_what_was_run_is_found_by_hashes_and_not_run_again(site: Site) -> None:
    dataset = prepared(site)
    first = evaluated(site, dataset)
    again = evaluated(site, dataset)
    assert again == Evaluated(first.evaluation, from_cache=True)
    assert runs_of(site, "infer") == [RunState.DONE]
    # Other parameters make another container hash.
    assert not evaluated(site, dataset, metrics="none, but another hash").from_cache
    assert not evaluated(site, dataset, model="none, but another hash").from_cache
    assert len(runs_of(site, "infer")) == 3


def test_a_damaged_cached_result_is_run_again(site: Site) -> None:
    dataset = prepared(site)
    key = evaluated(site, dataset).evaluation.key
    file = site.home.results / key / "result.yaml"
    whole = file.read_text()
    for damaged in (whole[:40], whole.replace(dataset.data_hash, "0" * 64)):
        file.write_text(damaged)
        with pytest.raises(IntegrityError):
            find_evaluation(site.home, key)
        assert not evaluated(site, dataset).from_cache
        assert evaluated(site, dataset).from_cache


def test_the_prepared_data_is_hashed_again_before_anything_runs(site: Site) -> None:
    dataset = prepared(site)
    (dataset.data / "case0.txt").write_text("ALTERED")
    with pytest.raises(IntegrityError, match=r"changed: data/case0\.txt"):
        evaluated(site, dataset)
    assert runs_of(site, "infer") == []


@pytest.mark.parametrize(("model", "metrics", "task"), [("infer", "", "infer"), ("", "evaluate", "evaluate")])
def test_a_failure_names_the_task_the_exit_code_and_the_log_and_leaves_no_result(
    site: Site, model: str, metrics: str, task: str
) -> None:
    with pytest.raises(ContainerFailed, match=f"'{task}' ended with exit code 3") as raised:
        evaluated(site, prepared(site), model=model, metrics=metrics)
    assert str(site.home.runs / site.journal.runs()[0].id / "task.log") in raised.value.hint
    assert list(site.home.results.rglob("result.yaml")) == []
    # A model's predictions wait for the next command where the metrics failed.
    kept = [run.id for run in site.journal.runs() if (run.task, run.state) == ("infer", RunState.DONE)]
    assert [folder.parent.name for folder in site.home.runs.glob("*/work")] == kept


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("nothing", "is not there"),
        ("link", "link"),
        ("not_yaml", "not valid YAML"),
        ("list", "mapping"),
        ("huge", "larger than"),
        ("controls", "control characters"),
    ],
)
def test_a_metrics_file_that_cannot_be_trusted_is_refused(site: Site, fault: str, said: str) -> None:
    with pytest.raises(ContainerFailed, match=said) as raised:
        evaluated(site, prepared(site), metrics=fault)
    assert "root:" not in str(raised.value)
    # It has failed, and is not what another command goes on with; the predictions are.
    assert [(run.task, run.state, run.cause, run.holds_outputs) for run in site.journal.runs()] == [
        ("evaluate", RunState.FAILED, Cause.BAD_OUTPUT, False),
        ("infer", RunState.DONE, None, True),
    ]
    assert list(site.home.results.rglob("result.yaml")) == []


def test_undefined_metrics_are_null(site: Site) -> None:
    found = evaluated(site, prepared(site), metrics="undefined").evaluation
    assert found.metrics == {"auc": None, "worst": {"low": None, "high": None}, "list": [None, 1]}
    assert find_evaluation(site.home, found.key) == found


def test_a_partial_result_is_made_only_when_asked_for_and_a_whole_run_replaces_it(site: Site) -> None:
    dataset = prepared(site)
    with pytest.raises(ContainerFailed):
        evaluated(site, dataset, model="half")
    partial = evaluated(site, dataset, model="half", ignore_model_errors=True)
    assert partial.evaluation.is_partial
    assert partial.evaluation.metrics["counts"] == {"cases": 1}
    assert evaluated(site, dataset, model="half", ignore_model_errors=True).from_cache
    # Whoever wants a whole one is not given the partial one.
    with pytest.raises(ContainerFailed):
        evaluated(site, dataset, model="half")
    with pytest.raises(ContainerFailed):
        evaluated(site, dataset, model="infer", ignore_model_errors=True)


def test_a_model_that_writes_no_predictions_fails_itself_and_the_metrics_do_not_run(site: Site) -> None:
    dataset = prepared(site)
    with pytest.raises(ContainerFailed, match="small-model-2 ended well but wrote no predictions") as failed:
        evaluated(site, dataset, model="no predictions")
    assert "Tell the model's owner" in failed.value.hint
    assert runs_of(site, "evaluate") == []


def test_a_model_that_hangs_is_ended_at_its_limit(site: Site) -> None:
    dataset = prepared(site)
    with pytest.raises(ContainerFailed, match="longer than its limit"):
        evaluated(site, dataset, model="slow", wall_seconds=0.2)
    assert site.journal.runs()[0].cause == "time_limit"


def test_a_result_keeps_its_submission_under_its_name_until_it_is_another_evaluation(site: Site) -> None:
    dataset = prepared(site)
    place = {"benchmark_id": 1, "model_id": 4, "dataset_id": 9}
    named = name_result(site.home, evaluated(site, dataset).evaluation, **place)
    record_submission(site.home, named, 31)
    assert find_result(site.home, "b1m4d9").submitted_id == 31
    assert name_result(site.home, evaluated(site, dataset).evaluation, **place).submitted_id == 31
    other = evaluated(site, dataset, model="none, but another hash").evaluation
    assert name_result(site.home, other, **place).submitted_id is None
    assert [one.name for one in local_results(site.home)] == ["b1m4d9"]


# The commands, against a scripted peer


@pytest.fixture
def server(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[BenchmarkServer]:
    answering = BenchmarkServer(site.shelf)
    for number, role in ((1, Role.PREPARATION), (2, Role.MODEL), (3, Role.METRICS), (4, Role.MODEL)):
        fault = "none, but another hash" if number == 4 else ""
        site.shelf.register(number, role, fault=fault)
    with ScriptedPeer(answering) as peer:
        monkeypatch.setenv("MEDPERF_SERVER", peer.url)
        monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "medperf"))
        site.home = Home.at(peer.url)
        site.journal = Journal(site.home.journal)
        Preferences(platform="sandbox").save(site.home.preferences)
        with Gateway(site.home) as gateway:
            gateway.login("ada", "test")
        yield answering


Medperf = Callable[..., tuple[int, str, str]]


@pytest.fixture
def medperf(capfd: pytest.CaptureFixture[str]) -> Medperf:
    def command(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(arguments)
        said = capfd.readouterr()
        return code, said.out, said.err

    return command


def created(site: Site, medperf: Medperf) -> str:
    code, out, err = medperf(
        *("dataset", "create", "--name", "mytestdata", "--description", "d", "--location", "here"),
        *("--data-path", str(site.data), "--labels_path", str(site.labels), "--benchmark", "1"),
    )
    assert code == 0, err
    found = re.search(r"^Generated UID: ([0-9a-f]{40})$", out, re.MULTILINE)
    assert found is not None
    return found[1]


RUN = ("benchmark", "run", "--benchmark", "1", "--data_uid", "9")


def test_the_data_owners_steps_in_the_words_of_the_tutorial(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    uid = created(site, medperf)
    assert server.posted == []

    code, out, _ = medperf("dataset", "submit", "--data_uid", uid[:8], "--yes")
    assert (code, "Server UID: 9" in out) == (0, True)
    path, body = server.posted[0]
    # What was printed is what was sent.
    assert (path, printed(out)) == ("/datasets", body)

    server.state = None
    code, out, err = medperf("dataset", "associate", "--benchmark_uid", "1", "--data_uid", "9", "-y")
    assert (code, "Association 8 is PENDING." in out) == (0, True), err
    path, body = server.posted[1]
    assert (path, printed(out)) == ("/associations", body)
    assert set(body["summary"]) == {"metrics", "started_at", "finished_at", "seconds"}
    assert "secret" not in str(server.posted)
    assert "Scores in benchmark 1 (chest-1) are seen by you and by the benchmark's owner, and by nobody" in out

    server.state = "APPROVED"
    code, out, err = medperf(*RUN)
    assert (code, out) == (
        0,
        """\
  model  local result UID    partial result    from cache    error
-------  ------------------  ----------------  ------------  -------
      2  b1m2d9              False             True
      4  b1m4d9              False             False
Total number of models: 2
        1 were skipped (already executed), of which 0 have partial results
        0 failed
        1 ran successfully, of which 0 have partial results

✅ Done!
""",
    )
    assert "[2/2] model 4 · small-model-4" in err
    assert "infer begins" in err

    code, out, _ = medperf("result", "view", "b1m4d9")
    assert (code, yaml.safe_load(out)["evaluation"]["metrics"]["auc"]) == (0, 0.015)

    code, out, _ = medperf("result", "submit", "--result", "b1m4d9", "--yes")
    assert (code, "b1m4d9 is accepted. Server UID: 34" in out) == (0, True)
    assert (server.posted[2][0], printed(out)) == ("/results", server.posted[2][1])
    assert "are seen by you and by the benchmark's owner, and by nobody else" in out
    code, out, _ = medperf("result", "submit", "--all", "--yes")
    assert (code, [body["model_id"] for path, body in server.posted if path == "/results"]) == (0, [4, 2])
    code, out, _ = medperf("result", "submit", "--all", "--yes")
    assert (code, out) == (0, "Nothing is left to send.\n")


def test_models_are_named_by_options_and_a_file_and_run_in_that_order(
    site: Site, server: BenchmarkServer, medperf: Medperf, tmp_path: Path
) -> None:
    ready(site)
    file = tmp_path / "models.txt"
    file.write_text("\ufeff# the reference model last\n4, 2\n")
    code, out, err = medperf(*RUN, "--models_file", str(file))
    assert (code, re.findall(r"^ +(\d) +b1", out, re.MULTILINE)) == (0, ["4", "2"]), err
    code, out, _ = medperf(*RUN, "-m", "4")
    assert (code, "Total number of models: 1" in out) == (0, True)
    assert len([run for run in site.journal.runs() if run.task == "infer"]) == 2


def test_models_run_in_the_order_in_which_they_are_said_to_be_due(
    site: Site, server: BenchmarkServer, medperf: Medperf, tmp_path: Path
) -> None:
    """The server alone puts them in an order: here one that neither their UIDs nor the reference model explain."""
    site.shelf.register(5, Role.MODEL, fault="none, but another hash")
    ready(site)
    server.models = [5, 2, 4]
    code, out, err = medperf(*RUN)
    assert (code, re.findall(r"^ +(\d) +b1", out, re.MULTILINE)) == (0, ["5", "2", "4"]), err
    assert re.findall(r"model (\d) · ", err) == ["5", "2", "4"]
    for named in (("-m", "4", "-m", "5"), ("--models", "4,5"), ("--model", "4", "--models", "4, 5")):
        _, out, _ = medperf(*RUN, *named)
        assert re.findall(r"^ +(\d) +b1", out, re.MULTILINE) == ["4", "5"]


@pytest.mark.parametrize("named", ["", "4,", "4;5", "four", "0", "٢", "9" * 5000])
def test_models_that_are_no_uids_are_said(
    site: Site, server: BenchmarkServer, medperf: Medperf, named: str
) -> None:
    ready(site)
    code, _, err = medperf(*RUN, "--models", named)
    assert (code, "is no model's UID" in err, len(err) < 600, site.journal.runs()) == (2, True, True, []), err


@pytest.mark.parametrize(
    ("owner_id", "models"), [(3, ""), (5, ", association/25@3, association/24@3")], ids=["theirs", "ours"]
)
def test_who_owns_the_benchmark_is_answered_in_the_order_that_they_have_just_set(
    site: Site, server: BenchmarkServer, medperf: Medperf, owner_id: int, models: str
) -> None:
    """The results service waits for the versions that the associations service has just shown."""
    site.shelf.register(5, Role.MODEL, fault="none, but another hash")
    ready(site)
    server.benchmark_owner_id, server.models = owner_id, [5, 4]
    assert medperf(*RUN)[0] == 0
    (due,) = [asked for asked in server.asked if asked.path == "/api/v1/due"]
    assert due.headers["medperf-seen"] == f"association/7@1{models}"
    lists = [asked.query for asked in server.asked if asked.path == "/api/v1/associations"]
    assert ["dataset" in query for query in lists] == ([True, False] if models else [True])


def test_before_a_run_is_said_how_much_is_to_be_done_and_how_long_it_took_before(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    _, _, err = medperf(*RUN, "-m", "4")
    assert re.search(r"^Models: 1 to run\. Free for what they write: [\d,]+\.\d GB\.$", err, re.MULTILINE), err
    _, _, err = medperf(*RUN)
    assert "Models: 1 to run, 1 already done. Free" in err
    took = site.journal.last_took(site.shelf.views[4].hash, "infer")
    assert took is not None
    _, _, err = medperf(*RUN, "--rerun", "-m", "4")
    assert "Models: 1 to run; they took " in err
    assert "Models:" not in medperf(*RUN)[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("7", "Model 7 is not one that this benchmark wants a result of."),
        ("2\nfour", "line 2: 'four' is no model's UID"),
        ("0", "line 1: '0' is no model's UID"),
        ("# none", "names no model"),
        ("9" * 5000, "is no model's UID"),
        ("4\n" * 600_000, "is larger than 1 MiB"),
        ("٢", "is no model's UID"),
    ],
    ids=["not due", "a word", "zero", "none", "endless", "huge", "another script's digit"],
)
def test_a_file_of_models_that_cannot_be_used_is_said(
    site: Site, server: BenchmarkServer, medperf: Medperf, tmp_path: Path, text: str, said: str
) -> None:
    ready(site)
    file = tmp_path / "models.txt"
    file.write_text(text)
    code, _, err = medperf(*RUN, "--models_file", str(file))
    assert (code, said in err, site.journal.runs()) == (2, True, []), err


def test_what_was_run_before_is_run_again_only_where_asked_for_and_not_once_it_is_submitted(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    def runs_of(model: int) -> int:
        return len([run for run in site.journal.runs() if run.container_name == f"small-model-{model}"])

    ready(site)
    for more, expected in (((), (1, 1)), ((), (1, 1)), (("--rerun",), (2, 2)), (("--no_cache",), (3, 3))):
        code, _, err = medperf(*RUN, *more)
        assert (code, (runs_of(2), runs_of(4))) == (0, expected), err
    assert medperf("result", "submit", "--result", "b1m2d9", "--yes")[0] == 0
    code, out, err = medperf(*RUN, "--rerun")
    assert (code, (runs_of(2), runs_of(4))) == (0, (3, 4))
    assert "1 were skipped (already executed)" in out
    assert "was submitted, which is final: its result is taken from the local cache" in err
    # Nothing of what was done anew is left for another command.
    assert not any(run.holds_outputs for run in site.journal.runs())


def test_a_model_that_writes_nothing_has_failed_and_nothing_of_it_is_kept(site: Site) -> None:
    with pytest.raises(ContainerFailed, match="wrote no predictions"):
        evaluated(site, prepared(site), model="no predictions")
    [run] = site.journal.runs()
    assert (run.state, run.cause, run.holds_outputs) == (RunState.FAILED, Cause.BAD_OUTPUT, False)
    assert list(site.home.runs.glob("*/work")) == []


def test_a_file_that_was_there_empty_from_the_start_is_no_prediction(tmp_path: Path) -> None:
    empty = tmp_path / "predictions.csv"
    empty.touch()
    outputs = TaskOutputs("run", tmp_path, {"output_path": empty})
    with pytest.raises(ContainerFailed, match="wrote no predictions"):
        check_predictions(outputs, "model")
    failed = ContainerFailed("it ended with exit code 3", hint="")
    with pytest.raises(ContainerFailed, match="exit code 3"):
        check_predictions(TaskOutputs("run", tmp_path, {"output_path": empty}, failed), "model")
    empty.write_text("case0,1")
    check_predictions(outputs, "model")


def test_a_rerun_that_fails_leaves_what_is_whole_and_nothing_for_others(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    site.shelf.register(4, Role.MODEL, fault="writes for 1.5")
    assert medperf(*RUN, "-m", "4")[0] == 0
    code, out, err = medperf(*RUN, "-m", "4", "--rerun", "--ignore_model_errors", "--time_limit", "1")
    assert (code, "ran longer than its limit of 1 s" in err) == (7, True), out
    code, out, _ = medperf(*RUN, "-m", "4")
    assert (code, "of which 0 have partial results" in out) == (0, True)
    [kept] = local_results(site.home)
    assert not kept.evaluation.is_partial
    assert [run.work_key is None for run in site.journal.runs()] == [True, False, False]


def test_what_was_submitted_in_one_benchmark_is_final_in_another(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    dataset = ready(site)
    assert medperf(*RUN, "-m", "4")[0] == 0
    kept = find_result(site.home, "b1m4d9").evaluation
    name_result(site.home, kept, benchmark_id=5, model_id=4, dataset_id=9)
    assert not is_submitted(site.home, kept.key)
    assert medperf("result", "submit", "--result", "b1m4d9", "--yes")[0] == 0
    assert is_submitted(site.home, kept.key)
    (site.home.results / "names" / "b5m4d9.yaml").write_text("damaged")
    assert is_submitted(site.home, kept.key)
    assert not is_submitted(site.home, "0" * 64), dataset


def test_that_scores_are_public_is_said_before_the_question(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    server.benchmark["public_scores"] = True
    server.state = None
    code, out, _ = medperf("dataset", "associate", "--benchmark_uid", "1", "--data_uid", "9")
    assert (code, "Scores in benchmark 1 (chest-1) are public: everybody" in out) == (3, True)
    server.state = "APPROVED"
    assert medperf(*RUN)[0] == 0
    code, out, _ = medperf("result", "submit", "--all")
    assert (code, "Scores in benchmark 1 (chest-1) are public: everybody" in out) == (3, True)


def printed(out: str) -> Any:
    """The YAML that a command printed, indented, before it sent it."""
    block = re.search(r"\n\n((?:  .*\n)+)", out)
    assert block is not None, out
    return yaml.safe_load(block[1])


def ready(site: Site) -> LocalDataset:
    """A dataset that was prepared and submitted."""
    return prepared(site).linked_to(9)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (None, "has not asked to take part"),
        ("PENDING", "is PENDING"),
        ("REJECTED", "is REJECTED"),
        ("WITHDRAWN", "is WITHDRAWN"),
    ],
)
def test_nothing_runs_and_nothing_is_sent_unless_the_association_is_approved(
    site: Site, server: BenchmarkServer, medperf: Medperf, state: str | None, said: str
) -> None:
    dataset = ready(site)
    runs = len(site.journal.runs())
    server.state = state
    code, _, err = medperf(*RUN)
    assert (code, said in err, "What to do:" in err) == (NotApproved.exit_code, True, True)
    assert len(site.journal.runs()) == runs

    evaluation = evaluated(site, dataset).evaluation
    name_result(site.home, evaluation, benchmark_id=1, model_id=4, dataset_id=9)
    assert medperf("result", "submit", "--result", "b1m4d9", "-y")[0] == NotApproved.exit_code
    assert server.posted == []


@pytest.mark.parametrize("command", [RUN, ("result", "submit", "--all"), ("dataset", "submit", "-d", "9")])
def test_where_the_server_has_another_store_no_local_server_uid_is_used(
    site: Site, server: BenchmarkServer, medperf: Medperf, command: tuple[str, ...]
) -> None:
    ready(site)
    assert medperf(*RUN)[0] == 0
    server.store_id = str(uuid.UUID(int=8))
    assert medperf(*command)[0] == StoreChanged.exit_code
    assert find_dataset(site.home, "9").server_id == 9
    # Set aside on the person's word, the datasets and results of the old store are no longer found.
    code, out, err = medperf(*command, "-y")
    assert (code, out, "The old folder is now" in err) == (StoreChanged.exit_code, "", True)
    assert local_results(site.home) == []
    assert server.posted == []


def test_one_model_that_fails_does_not_stop_the_others(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    site.shelf.register(2, Role.MODEL, fault="infer")
    server.models = [2, 4, 5, 6, 7]
    # Neither is a model: one prepares data, the other has a manifest that is none.
    site.shelf.register(6, Role.PREPARATION)
    site.shelf.add(7, Role.MODEL, manifest="a: 1", parameters="fault: \n", archive=b"")
    site.shelf.views[5] = site.shelf.register(5, Role.MODEL).model_copy(update={"hash": "0" * 64})

    code, out, err = medperf(*RUN)

    assert code == PartlyDone.exit_code
    rows = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()[2:7]]
    assert rows[0] == ["2", "The task 'infer' ended with exit code 3"]
    assert rows[1] == ["4", "b1m4d9", "False", "False"]
    assert rows[2][0] == "5"
    assert rows[2][1] == "The hash of container 5 (small-model-5) is not what its reg…"
    assert (rows[3][0], rows[4][0]) == ("6", "7")
    assert re.search(r"Model 6: .* cannot be a benchmark's model container: tasks\.infer is missing", err)
    assert "Model 7: In the container's manifest, tasks is missing" in err
    assert "        4 failed\n        1 ran successfully" in out
    assert "Done" not in out
    assert "task.log" in err
    assert [one.name for one in local_results(site.home)] == ["b1m4d9"]


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "1:" * 190 + "1.5"], ids=["digits", "sexagesimal"])
def test_a_model_whose_manifest_holds_a_number_that_cannot_be_read_does_not_stop_the_others(
    site: Site, server: BenchmarkServer, medperf: Medperf, number: str
) -> None:
    ready(site)
    server.models = [2, 4]
    manifest = f"accelerators: {number}\n{safe_yaml.dump(manifest_of(Role.MODEL))}"
    archive = archive_of("main.py", b"raise SystemExit(0)")
    site.shelf.add(2, Role.MODEL, manifest=manifest, parameters="fault:\n", archive=archive)

    code, out, err = medperf(*RUN)

    assert code == PartlyDone.exit_code
    assert "is not a number that can be read" in err
    assert "        1 failed\n        1 ran successfully" in out


def test_a_model_whose_files_cannot_be_fetched_does_not_stop_the_others(
    site: Site, server: BenchmarkServer, medperf: Medperf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Gateway.__init__.__kwdefaults__, "bound_seconds", 0.2)
    ready(site)
    server.models = [2, 4]
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}/model.tar.gz"
    registered = site.shelf.register(2, Role.MODEL, fault="another host")
    site.shelf.views[2] = registered.model_copy(update={"additional_files_url": dead})

    code, out, err = medperf(*RUN)

    assert code == PartlyDone.exit_code
    assert "cannot be fetched" in err
    assert "        1 failed\n        1 ran successfully" in out


def test_a_result_goes_only_with_the_data_that_it_was_computed_on(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    dataset = ready(site)
    assert medperf(*RUN)[0] == 0
    dataset.model_copy(update={"data_hash": "f" * 64}).save()
    code, _, err = medperf("result", "submit", "--result", "b1m4d9", "-y")
    assert (code, server.posted) == (IntegrityError.exit_code, [])
    dataset.model_copy(update={"server_id": None}).save()
    code, _, err = medperf("result", "submit", "--result", "b1m4d9", "-y")
    assert (code, "is not on this machine" in err, server.posted) == (2, True, [])


def test_every_result_of_altered_data_is_told_why(site: Site, server: BenchmarkServer, medperf: Medperf) -> None:
    dataset = ready(site)
    assert medperf(*RUN)[0] == 0
    (dataset.data / "case1.txt").write_text("ALTERED")
    code, _, err = medperf("result", "submit", "--all", "-y")
    assert code == IntegrityError.exit_code
    # Each of the two results, and the error that the command ends with.
    assert (err.count("changed: data/case1.txt"), "Another command" in err) == (3, False)


def test_the_exit_code_is_that_of_the_failure_where_every_model_fails(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    server.models = [2]
    site.shelf.register(2, Role.MODEL, fault="infer")
    code, out, _ = medperf(*RUN)
    assert code == ContainerFailed.exit_code
    assert "        1 failed\n        0 ran successfully" in out


def test_a_time_limit_ends_a_model_and_says_so(site: Site, server: BenchmarkServer, medperf: Medperf) -> None:
    ready(site)
    server.models = [4]
    site.shelf.register(4, Role.MODEL, fault="slow")
    code, out, _ = medperf(*RUN, "--time_limit", "1")
    assert (code, "ran longer than its limit of 1 s" in out) == (ContainerFailed.exit_code, True)


def test_changed_data_is_refused_even_where_every_result_is_cached(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    dataset = ready(site)
    assert medperf(*RUN)[0] == 0
    (dataset.data / "case1.txt").write_text("ALTERED")
    code, out, err = medperf(*RUN)
    assert (code, out) == (IntegrityError.exit_code, "")
    assert "changed: data/case1.txt" in err
    for command in (
        ("result", "submit", "--all", "-y"),
        ("dataset", "associate", "--benchmark_uid", "1", "--data_uid", "9", "-y"),
    ):
        server.state = "APPROVED" if command[0] == "result" else None
        code, _, err = medperf(*command)
        assert (code, "changed: data/case1.txt" in err) == (IntegrityError.exit_code, True)
    assert server.posted == []


def test_changed_data_is_not_submitted(site: Site, server: BenchmarkServer, medperf: Medperf) -> None:
    uid = prepared(site).generated_uid
    (site.home.datasets / uid / "labels/labels.csv").write_text("case0,0\n")
    code, _, err = medperf("dataset", "submit", "--data_uid", uid, "-y")
    assert (code, "changed: labels/labels.csv" in err, server.posted) == (IntegrityError.exit_code, True, [])


def test_a_second_command_on_the_dataset_says_that_it_is_busy(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    dataset = ready(site)
    with alone_with(site.home, dataset):
        for command in (RUN, ("dataset", "submit", "-d", "9"), ("dataset", "associate", "-b", "1", "-d", "9")):
            code, _, err = medperf(*command)
            assert (code, f"process {os.getpid()}" in err) == (Busy.exit_code, True)


def log_in_as(site: Site, server: BenchmarkServer, user_id: int, *, dataset_id: int = 9) -> None:
    """Somebody logs in on the same machine, whose datasets the server gives this ID."""
    server.user_id, server.dataset_id = user_id, dataset_id
    with Gateway(site.home) as gateway:
        gateway.login(f"user-{user_id}", "test")


def test_what_somebody_else_registered_is_not_on_the_server_for_the_next_person(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    uid = created(site, medperf)
    assert "Server UID: 9" in medperf("dataset", "submit", "--data_uid", uid, "-y")[1]
    log_in_as(site, server, 6, dataset_id=12)
    assert " 9 " not in medperf("dataset", "ls", "--local")[1]
    code, _, err = medperf("dataset", "associate", "-b", "1", "-d", "9")
    assert (code, "registered by somebody else" in err) == (2, True)
    # What they prepared is not the next person's to register, until that one has prepared it as well.
    code, _, err = medperf("dataset", "submit", "--data_uid", uid, "-y")
    assert (code, "prepared on this machine by user-5, and you are logged in as user-6" in err) == (2, True)
    assert "medperf login --username user-5" in err
    assert created(site, medperf) == uid
    code, out, _ = medperf("dataset", "submit", "--data_uid", uid, "-y")
    assert (code, "Server UID: 12" in out, "already" in out) == (0, True, False)
    assert [path for path, _ in server.posted] == ["/datasets", "/datasets"]
    # Each of the two has the dataset as they registered it.
    for user_id, dataset_id in ((5, 9), (6, 12)):
        log_in_as(site, server, user_id)
        code, out, _ = medperf("dataset", "submit", "--data_uid", uid, "-y")
        assert (code, out) == (0, f"It is on the server already. Server UID: {dataset_id}\n")
        assert created(site, medperf) == uid
    assert len(server.posted) == 2


def test_a_link_of_before_its_owner_was_written_down_is_that_of_whoever_is_logged_in(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    code, out, _ = medperf("dataset", "submit", "-d", "9", "-y")
    assert (code, "Server UID: 9" in out, server.posted) == (0, True, [])


def test_what_somebody_else_sent_is_no_result_of_the_next_person(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    uid = created(site, medperf)
    assert medperf("dataset", "submit", "--data_uid", uid, "-y")[0] == 0
    assert medperf(*RUN)[0] == 0
    assert medperf("result", "submit", "--result", "b1m4d9", "-y")[0] == 0
    log_in_as(site, server, 6, dataset_id=12)
    code, out, err = medperf("result", "submit", "--result", "b1m4d9", "-y")
    assert (code, out, "registered by somebody else" in err) == (2, "", True)
    assert find_result(site.home, "b1m4d9").submitted_id is None
    # All of theirs is nothing, and whose the rest is is said.
    code, out, err = medperf("result", "submit", "--all", "-y")
    assert (code, out) == (0, "Nothing is left to send.\n")
    assert err.count("Somebody else registered dataset 9") == 2
    log_in_as(site, server, 5)
    assert find_result(site.home, "b1m4d9").submitted_id == 34


def test_one_damaged_result_does_not_keep_back_the_others(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    assert medperf(*RUN)[0] == 0
    whole = find_result(site.home, "b1m4d9")
    for record in (
        site.home.results / "names" / "b1m2d9.yaml",
        site.home.results / find_result(site.home, "b1m2d9").evaluation.key / "result.yaml",
    ):
        before = record.read_text()
        record.write_text("half: [")
        code, out, err = medperf("result", "ls", "--local")
        assert (code, "b1m4d9" in out, "b1m2d9" in out) == (0, True, False)
        assert "Left out: b1m2d9." in err
        # What the person can do, and nothing of a line that they never wrote.
        assert "medperf benchmark run --benchmark 1 --data_uid 9" in err
        assert "orrect that line" not in err
        record.write_text(before)
    record.write_text("half: [")
    code, out, err = medperf("result", "submit", "--all", "-y")
    assert (code, [body["model_id"] for _, body in server.posted]) == (PartlyDone.exit_code, [4])
    assert "b1m2d9 was not sent" in err
    code, out, err = medperf("result", "submit", "--all", "-y")
    assert (code, len(server.posted)) == (IntegrityError.exit_code, 1)

    assert medperf(*RUN)[0] == 0
    assert find_result(site.home, "b1m4d9") == whole.model_copy(
        update={"submissions": find_result(site.home, "b1m4d9").submissions}
    )
    code, out, err = medperf("result", "submit", "--all", "-y")
    assert (code, [body["model_id"] for _, body in server.posted]) == (0, [4, 2])


def test_a_damaged_name_of_a_result_is_written_anew_by_the_run_that_its_hint_names(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    assert medperf(*RUN)[0] == 0
    (site.home.results / "names" / "b1m4d9.yaml").write_text("half: [")
    assert medperf("result", "view", "b1m4d9")[0] == IntegrityError.exit_code
    code, out, _ = medperf(*RUN)
    assert (code, "0 ran successfully" in out) == (0, True)
    assert medperf("result", "view", "b1m4d9")[0] == 0


def test_one_damaged_record_of_a_dataset_keeps_no_other_back(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    uid = created(site, medperf)
    record = site.home.datasets / uid / "dataset.yaml"
    broken = site.home.datasets / ("b" * 40) / "dataset.yaml"
    broken.parent.mkdir()
    broken.write_text(record.read_text()[:60])
    code, out, err = medperf("dataset", "ls", "--local")
    assert (code, uid in out, "b" * 40 in out) == (0, True, False)
    assert f"Left out: {'b' * 40}. The record of a dataset, {broken}, cannot be read." in err
    assert "What to do: Prepare the data again with `medperf dataset create`" in err
    assert created(site, medperf) == uid
    assert medperf("dataset", "submit", "--data_uid", uid, "-y")[0] == 0
    code, _, err = medperf("dataset", "view", "bb")
    assert (code, str(broken) in err) == (IntegrityError.exit_code, True)
    code, _, err = medperf("dataset", "view", "--local", "77")
    assert (code, "it may be one of these" in err) == (2, True)
    # And the damaged one is mended by the command that the hint names.
    record.write_text("half: [")
    assert created(site, medperf) == uid
    assert uid in medperf("dataset", "ls", "--local")[1]


def test_without_a_terminal_and_without_yes_nothing_is_sent(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    uid = prepared(site).generated_uid
    code, out, err = medperf("dataset", "submit", "--data_uid", uid)
    assert (code, "generated_uid: " in out, "--yes" in err, server.posted) == (3, True, True, [])


def test_what_is_asked_for_already_is_shown_and_not_run_again(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    runs = len(site.journal.runs())
    server.state = "PENDING"
    code, out, _ = medperf("dataset", "associate", "--benchmark_uid", "1", "--data_uid", "9")
    assert (code, "Association 7 is PENDING." in out) == (0, True)
    assert len(site.journal.runs()) == runs


def test_an_association_that_came_about_meanwhile_is_taken_as_it_is(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    server.state = "WITHDRAWN"
    server.refusals["/associations"] = existing("already_live", "association/7")
    code, out, _ = medperf("dataset", "associate", "--benchmark_uid", "1", "--data_uid", "9", "-y")
    assert (code, "Association 7 is WITHDRAWN." in out) == (0, True)


def existing(code: str, thing: str) -> Reply:
    document = {"title": code, "status": 409, "code": code, "detail": "It is there.", "existing": thing}
    return Reply.of(document, 409)


def test_a_result_that_the_server_has_already_is_linked(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    assert medperf(*RUN)[0] == 0
    server.refusals["/results"] = existing("already_submitted", "result/77")
    code, out, _ = medperf("result", "submit", "--result", "b1m4d9", "-y")
    assert (code, "result 77" in out) == (0, True)
    assert find_result(site.home, "b1m4d9").submitted_id == 77


def test_a_refused_result_is_not_written_down_as_sent(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    assert medperf(*RUN)[0] == 0
    server.refusals["/results"] = Reply.problem(409, "hash_differs")
    code, _, err = medperf("result", "submit", "--all", "-y")
    assert (code, "b1m2d9 was not sent" in err) == (Refused.exit_code, True)
    assert find_result(site.home, "b1m4d9").submitted_id is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": "DEVELOPMENT"}, "in development"),
        ({"approval": "PENDING"}, "not approved"),
        ({"is_valid": False}, "not valid"),
    ],
)
def test_a_benchmark_that_is_not_open_is_refused_before_the_reference_model_runs(
    site: Site, server: BenchmarkServer, medperf: Medperf, changes: dict[str, Any], said: str
) -> None:
    ready(site)
    runs = len(site.journal.runs())
    server.state, server.benchmark = None, changes
    code, _, err = medperf("dataset", "associate", "--benchmark_uid", "1", "--data_uid", "9", "-y")
    assert (code, said in err) == (NotApproved.exit_code, True)
    assert len(site.journal.runs()) == runs


def test_a_dataset_prepared_by_another_container_is_refused_before_anything_runs(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    runs = len(site.journal.runs())
    site.shelf.register(6, Role.PREPARATION, fault="none, but another hash")
    server.state, server.benchmark = None, {"preparation_id": 6}
    code, _, err = medperf("dataset", "associate", "--benchmark_uid", "1", "--data_uid", "9", "-y")
    assert (code, "was prepared by container 1" in err) == (2, True)
    assert len(site.journal.runs()) == runs


def test_ctrl_c_between_models_keeps_what_was_run_and_the_same_command_goes_on(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    site.shelf.register(4, Role.MODEL, fault="slow")
    done = threading.Event()

    def interrupt() -> None:
        while not done.is_set():
            for newest in site.journal.runs()[:1]:
                log = site.home.runs / newest.id / "task.log"
                if newest.container_name.endswith("4") and log.exists() and b"begins" in log.read_bytes():
                    os.kill(os.getpid(), signal.SIGINT)
                    return
            time.sleep(0.02)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    code, _, err = medperf(*RUN)
    done.set()
    watcher.join()
    assert (code, "Interrupted" in err) == (130, True)
    assert [one.name for one in local_results(site.home)] == ["b1m2d9"]
    assert list(site.home.runs.glob("*/work")) == []

    code, out, _ = medperf(*RUN)
    assert (code, "1 were skipped" in out, "1 ran successfully" in out) == (0, True, True)


# Several models at once


def at_once(site: Site) -> int:
    """How many models ran at the same moment, at most."""
    spans = [(one.started_at, one.finished_at) for one in site.journal.runs() if one.task == "infer"]
    ended = [(began, end) for began, end in spans if began is not None and end is not None]
    return max(sum(began <= moment < end for began, end in ended) for moment, _ in ended)


@pytest.fixture
def several(site: Site, server: BenchmarkServer) -> list[int]:
    """Five models that take a second each; the third fails."""
    ready(site)
    server.models = [2, 4, 5, 6, 7]
    for number in server.models:
        fault = "infer" if number == 5 else f"writes for 1.{number}"
        site.shelf.register(number, Role.MODEL, fault=fault)
    return server.models


def test_models_run_at_once_and_one_that_fails_stops_no_other(
    site: Site, several: list[int], medperf: Medperf
) -> None:
    code, out, err = medperf(*RUN, "--jobs", "2")
    assert (code, at_once(site)) == (PartlyDone.exit_code, 2), err
    rows = [re.split(r"\s{2,}", line.strip())[:2] for line in out.splitlines()[2:7]]
    assert [row[0] for row in rows] == [str(number) for number in several]
    assert [row[1] for row in rows if row[0] != "5"] == ["b1m2d9", "b1m4d9", "b1m6d9", "b1m7d9"]
    assert "Model 5: The task 'infer' ended with exit code 3" in err
    # Each line says whose it is.
    assert re.search(r"^\[2\]   infer begins$", err, re.MULTILINE)
    scores = {one.name: one.evaluation.metrics for one in local_results(site.home)}

    code, _, _ = medperf(*RUN, "--rerun")
    assert scores == {one.name: one.evaluation.metrics for one in local_results(site.home)}


def test_models_at_once_have_no_more_memory_than_one_alone(
    site: Site, several: list[int], medperf: Medperf
) -> None:
    whole = Limits().memory_bytes
    assert medperf(*RUN, "-j", "2", "-m", "4", "-m", "6")[0] == 0
    assert {run.limits["memory_bytes"] for run in site.journal.runs() if run.task == "infer"} == {whole // 2}
    # What a person says counts for each, and then for as many as there is memory for.
    more = ("--rerun", "-j", "3", "-m", "4", "-m", "6", "--memory_limit", str(whole * 0.6 / 1024**3))
    before = {run.id for run in site.journal.runs()}
    code, _, err = medperf(*RUN, *more)
    assert (code, "Memory for 1 at once, by --memory_limit: the others wait for theirs." in err) == (0, True)
    site.journal.forget(list(before))
    assert at_once(site) == 1


def test_ctrl_c_ends_all_that_run_at_once_and_the_same_command_goes_on(
    site: Site, several: list[int], medperf: Medperf
) -> None:
    for number in (6, 7):
        site.shelf.register(number, Role.MODEL, fault=f"writes for 60.{number}")
    done = threading.Event()

    def interrupt() -> None:
        while not done.is_set():
            running = [one for one in site.journal.runs() if one.state is RunState.RUNNING]
            if {one.container_name[-1] for one in running if one.task == "infer"} == {"6", "7"}:
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.02)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    began = time.monotonic()
    code, _, err = medperf(*RUN, "--jobs", "2")
    done.set()
    watcher.join()
    assert (code, time.monotonic() - began < 30) == (130, True), err
    assert sorted(one.name for one in local_results(site.home)) == ["b1m2d9", "b1m4d9"]
    cancelled = [one for one in site.journal.runs() if one.state is RunState.CANCELLED]
    assert sorted(one.container_name[-1] for one in cancelled) == ["6", "7"]
    assert {one.cause for one in cancelled} == {Cause.CANCELLED}
    assert list(site.home.runs.glob("*/work")) == []
    assert not any(one.is_open for one in site.journal.runs())

    for number in (6, 7):
        site.shelf.register(number, Role.MODEL, fault=f"writes for 0.{number}")
    code, out, _ = medperf(*RUN, "--jobs", "2")
    assert (code, "2 were skipped" in out, "2 ran successfully" in out) == (PartlyDone.exit_code, True, True)


def test_data_that_was_altered_stops_all_that_run_at_once(
    site: Site, several: list[int], medperf: Medperf
) -> None:
    (find_dataset(site.home, "9").data / "case0.txt").write_text("another")
    code, _, err = medperf(*RUN, "--jobs", "3")
    assert (code, "is not what was" in err or "altered" in err or "changed" in err) == (
        IntegrityError.exit_code,
        True,
    ), err
    assert [run for run in site.journal.runs() if run.task == "infer"] == []


def test_one_of_several_is_cancelled_by_another_command(site: Site, several: list[int], medperf: Medperf) -> None:
    site.shelf.register(6, Role.MODEL, fault="writes for 60")

    def cancel() -> None:
        while True:
            for one in site.journal.runs():
                if one.container_name[-1] == "6" and one.state is RunState.RUNNING:
                    site.journal.ask_cancel(one.id)
                    return
            time.sleep(0.02)

    watcher = threading.Thread(target=cancel, daemon=True)
    watcher.start()
    code, out, err = medperf(*RUN, "-j", "2", "-m", "6", "-m", "7")
    assert (code, "b1m7d9" in out) == (PartlyDone.exit_code, True), err
    assert "Model 6: The task 'infer' was stopped" in err


def test_gpus_that_are_not_there_are_refused_before_anything_runs(
    site: Site, server: BenchmarkServer, medperf: Medperf
) -> None:
    ready(site)
    code, _, err = medperf(*RUN, "--gpus", "1")
    assert (code, "--gpus asks for 1 GPUs." in err, site.journal.runs()) == (2, True, [])
    assert medperf(*RUN, "--gpus", "0")[0] == 0


def test_one_container_under_two_ids_is_run_once(site: Site, server: BenchmarkServer, medperf: Medperf) -> None:
    ready(site)
    for number in (4, 5):
        site.shelf.register(number, Role.MODEL, fault="writes for 0.5")
    assert site.shelf.views[4].hash == site.shelf.views[5].hash
    server.models = [2, 4, 5]
    code, out, err = medperf(*RUN, "--jobs", "3")
    assert (code, "b1m4d9" in out, "b1m5d9" in out) == (0, True, True), err
    assert len([run for run in site.journal.runs() if run.task == "infer"]) == 2


def test_what_an_earlier_command_left_is_gone_on_with_before_anything_begins(
    site: Site, several: list[int], medperf: Medperf
) -> None:
    site.shelf.register(3, Role.METRICS, fault="exits 1")
    assert medperf(*RUN, "-m", "7")[0] == ContainerFailed.exit_code
    assert [run.holds_outputs for run in site.journal.runs() if run.task == "infer"] == [True]
    site.shelf.register(3, Role.METRICS)
    code, out, err = medperf(*RUN)
    assert code == PartlyDone.exit_code, err
    assert re.findall(r"^\[\d/5\] model (\d)", err, re.MULTILINE) == ["7", "2", "4", "5", "6"]
    # The table is in the benchmark's order.
    assert re.findall(r"^ +(\d)  ", out, re.MULTILINE) == ["2", "4", "5", "6", "7"]
