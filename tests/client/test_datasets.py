"""Prepared datasets: made by real containers in the real sandbox, kept whole or not at all, and checked again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from containers.small import Site
from medperf.datasets import LocalDataset, alone_with, find_dataset, local_datasets
from medperf.errors import BadManifest, Busy, ContainerFailed, IntegrityError, UsageError
from medperf.files import locked
from medperf.journal import Journal, Run, RunState
from medperf.manifest import Role
from medperf.preparation import Description, prepare

ABOUT = Description("mytestdata", "A dataset", "My machine")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def made(site: Site, *, fault: str = "", about: Description = ABOUT, **paths: Path) -> LocalDataset:
    @contextlib.contextmanager
    def step(name: str) -> Iterator[None]:
        site.steps.append(name)
        yield

    return prepare(
        site.runner(),
        site.container(1, Role.PREPARATION, fault=fault),
        data_path=paths.get("data_path", site.data),
        labels_path=paths.get("labels_path", site.labels),
        about=about,
        step=step,
    )


def nothing_is_left(site: Site) -> None:
    """No dataset, and of the runs what tasks wrote that ended well and wait for the next command."""
    assert [path.name for path in site.home.datasets.iterdir() if path.name != ".locks"] == []
    kept = {run.id for run in site.journal.runs() if run.holds_outputs}
    assert {folder.parent.name for folder in site.home.runs.glob("*/work")} == kept
    assert all(run.state is RunState.DONE for run in site.journal.runs() if run.holds_outputs)


def test_a_dataset_is_kept_under_its_identity_with_its_record(site: Site) -> None:
    dataset = made(site)

    assert site.steps == ["prepare", "sanity_check", "statistics", "hash"]
    assert dataset.folder == site.home.datasets / dataset.generated_uid
    assert (dataset.data / "case1.txt").read_text() == "THREE"
    assert (dataset.labels / "labels.csv").read_bytes() == (site.labels / "labels.csv").read_bytes()
    assert dataset.data_hash.startswith(dataset.generated_uid)
    # An undefined number is null, and says so.
    assert dataset.statistics == {"cases": 3, "mean": None}
    assert dataset.source.data_path == str(site.data)
    assert local_datasets(site.home) == [dataset]
    dataset.verify()
    assert list(site.home.runs.glob("*/work")) == []


def test_every_task_is_a_run_in_the_journal(site: Site) -> None:
    made(site)
    runs = site.journal.runs()
    assert [run.task for run in reversed(runs)] == ["prepare", "sanity_check", "statistics"]
    assert {run.state for run in runs} == {RunState.DONE}
    assert {run.purpose for run in runs} == {"dataset create"}
    # Known once there is one; the runs of what failed are of no dataset.
    assert {run.dataset_uid for run in runs} == {local_datasets(site.home)[0].generated_uid}
    assert all((site.home.runs / run.id / "task.log").read_text().endswith("begins\n") for run in runs)


def test_what_is_sent_is_metadata_only_and_nothing_of_this_machine(site: Site) -> None:
    body = made(site).body().model_dump(mode="json")
    assert set(body) == {
        "name",
        "description",
        "location",
        "generated_uid",
        "data_hash",
        "preparation_id",
        "statistics",
    }
    assert str(site.folder) not in str(body)
    assert "begins" not in str(body)


def test_the_same_data_prepared_twice_has_one_uid_and_the_newer_description(site: Site) -> None:
    first = made(site)
    second = made(site, about=Description("another name", "", ""))
    assert second.generated_uid == first.generated_uid
    assert [dataset.name for dataset in local_datasets(site.home)] == ["another name"]
    second.verify()


def test_a_registered_dataset_keeps_its_record_when_prepared_again(site: Site) -> None:
    made(site).linked_to(7)
    again = made(site, about=Description("another name", "", ""))
    assert (again.server_id, again.name) == (7, "mytestdata")
    assert find_dataset(site.home, "7") == again


def test_a_registered_dataset_is_not_taken_over_by_another_preparation(site: Site) -> None:
    made(site).linked_to(7)
    with pytest.raises(UsageError, match="registered as dataset 7"):
        made(site, fault="none, but another hash")
    assert find_dataset(site.home, "7").name == "mytestdata"


def test_what_is_not_said_again_of_a_dataset_stays(site: Site) -> None:
    made(site, about=Description("mytestdata", "A description", "Ward 3"))
    again = made(site, about=Description("another name", "", ""))
    assert (again.name, again.description, again.location) == ("another name", "A description", "Ward 3")


def test_preparing_again_mends_a_damaged_dataset_and_keeps_its_server_uid(site: Site) -> None:
    dataset = made(site).linked_to(7)
    (dataset.data / "case0.txt").write_text("altered")
    assert made(site).server_id == 7
    find_dataset(site.home, "7").verify()
    assert list(site.home.runs.glob("*/work")) == []


def test_preparing_again_mends_a_damaged_record(site: Site) -> None:
    dataset = made(site)
    (dataset.folder / "dataset.yaml").write_text("half: [")
    with pytest.raises(IntegrityError, match=r"dataset\.yaml"):
        local_datasets(site.home)
    made(site)
    assert local_datasets(site.home)[0].name == "mytestdata"


@pytest.mark.parametrize("fault", ["prepare", "sanity_check", "statistics"])
def test_nothing_is_kept_unless_every_task_ends_well(site: Site, fault: str) -> None:
    with pytest.raises(ContainerFailed, match=f"'{fault}' ended with exit code 3") as raised:
        made(site, fault=fault)
    nothing_is_left(site)
    run = site.journal.runs()[0]
    assert (run.task, run.state, run.exit_code) == (fault, RunState.FAILED, 3)
    log = site.home.runs / run.id / "task.log"
    assert str(log) in raised.value.hint
    assert f"fault {fault}" in log.read_text()


def test_a_link_among_the_outputs_is_refused_and_its_target_never_read(site: Site) -> None:
    with pytest.raises(ContainerFailed, match="link"):
        made(site, fault="link")
    nothing_is_left(site)
    assert (site.journal.runs()[0].state, site.journal.runs()[0].cause) == (RunState.FAILED, "bad_output")


def test_a_preparation_that_writes_nothing_is_an_error(site: Site) -> None:
    with pytest.raises(IntegrityError, match="no file"):
        made(site, fault="nothing")
    nothing_is_left(site)


def test_ctrl_c_stops_the_container_and_leaves_nothing_half_done(site: Site) -> None:
    def interrupt() -> None:
        while not any("begins" in line for line in site.lines):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        made(site, fault="slow")
    nothing_is_left(site)
    assert (site.journal.runs()[0].state, site.journal.runs()[0].cause) == (RunState.CANCELLED, "cancelled")


class InterruptedAtTheRecord(Journal):
    """A journal whose client is interrupted when a run's record is there, and nothing of the run yet."""

    def open_run(self, **said: Any) -> Run:
        super().open_run(**said)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the interrupt did not come")


def test_ctrl_c_at_the_start_of_a_task_ends_its_run_as_cancelled(site: Site) -> None:
    site.journal = InterruptedAtTheRecord(site.home.journal)
    with pytest.raises(KeyboardInterrupt):
        made(site)
    (run,) = site.journal.runs()
    assert (run.state, run.cause) == (RunState.CANCELLED, "cancelled")
    assert site.journal.left_over() == []


@pytest.mark.parametrize(
    ("alter", "named"),
    [
        (lambda folder: (folder / "data/case0.txt").write_text("ONE!"), r"changed: data/case0\.txt"),
        (lambda folder: (folder / "labels/labels.csv").unlink(), r"missing: labels/labels\.csv"),
        (lambda folder: (folder / "data/more.txt").write_text("X"), r"new: data/more\.txt"),
    ],
    ids=["changed", "missing", "new"],
)
def test_a_changed_prepared_folder_is_refused_naming_the_files(site: Site, alter: object, named: str) -> None:
    dataset = made(site)
    assert callable(alter)
    alter(dataset.folder)
    with pytest.raises(IntegrityError, match=named):
        dataset.verify()


def test_records_changed_together_with_the_data_are_refused(site: Site) -> None:
    dataset = made(site)
    records = dataset.folder / "records.json"
    records.write_text(records.read_text().replace("case0", "case9"))
    (dataset.data / "case0.txt").rename(dataset.data / "case9.txt")
    with pytest.raises(IntegrityError, match="not those its UID was made of"):
        dataset.verify()


def test_a_dataset_is_found_by_server_uid_or_by_a_unique_beginning(site: Site) -> None:
    first = made(site)
    (site.data / "case3.txt").write_text("more")
    second = made(site).linked_to(12)
    assert find_dataset(site.home, "12") == second
    assert find_dataset(site.home, first.generated_uid[:6].upper()) == first
    with pytest.raises(UsageError, match="has a generated UID that begins with ''"):
        find_dataset(site.home, "")
    with pytest.raises(UsageError, match="server UID 13"):
        find_dataset(site.home, "13")


def copied(site: Site, dataset: LocalDataset, uid: str, server_id: int | None) -> None:
    record = yaml.safe_load((dataset.folder / "dataset.yaml").read_text())
    folder = site.home.datasets / uid
    folder.mkdir()
    record.update(generated_uid=uid, server_id=server_id)
    (folder / "dataset.yaml").write_text(yaml.safe_dump(record))


def test_a_beginning_of_more_than_one_uid_is_refused(site: Site) -> None:
    dataset = made(site)
    copied(site, dataset, "7" * 40, None)
    copied(site, dataset, "7" * 20 + "a" * 20, 5)
    assert find_dataset(site.home, "7" * 21).generated_uid == "7" * 40
    with pytest.raises(UsageError, match="begins more than one UID"):
        find_dataset(site.home, "7" * 10)


def test_inputs_that_cannot_be_prepared_are_refused_before_anything_runs(site: Site) -> None:
    empty = site.folder / "empty"
    empty.mkdir()
    for paths, said in (
        ({"data_path": site.folder / "gone"}, "gone cannot be read"),
        ({"labels_path": empty}, "empty is empty"),
    ):
        with pytest.raises(UsageError, match=said):
            made(site, **paths)
    assert site.journal.runs() == []


@pytest.mark.parametrize("name", ["", "x" * 129, "two\nlines", "\x1b[31m"])
def test_a_name_that_the_server_would_refuse_is_refused_before_the_work(site: Site, name: str) -> None:
    with pytest.raises(UsageError, match="name cannot be used"):
        made(site, about=Description(name, "", ""))
    assert site.journal.runs() == []


def test_a_refused_name_is_explained_in_words_for_people(site: Site) -> None:
    with pytest.raises(UsageError) as refused:
        made(site, about=Description("two\nlines", "", ""))
    assert "Value error" not in str(refused.value)


def test_two_commands_on_one_dataset_are_one_that_works_and_one_that_says_so(site: Site) -> None:
    dataset = made(site)
    with (
        alone_with(site.home, dataset),
        pytest.raises(Busy, match=f"process {os.getpid()}"),
        alone_with(site.home, dataset),
    ):
        pass


def test_two_preparations_of_the_same_files_are_one_that_works_and_one_that_says_so(site: Site) -> None:
    made(site)
    lock = next(path for path in (site.home.datasets / ".locks").iterdir() if path.name.startswith("prepare-"))
    with locked(lock, what="the preparation"), pytest.raises(Busy):
        made(site)


def test_a_finished_preparation_waits_for_the_command_that_works_on_the_dataset(site: Site) -> None:
    dataset = made(site)
    let_go = threading.Event()

    def hold() -> None:
        with alone_with(site.home, dataset):
            held.set()
            let_go.wait(30)

    held = threading.Event()
    holding = threading.Thread(target=hold)
    holding.start()
    assert held.wait(10)
    seen: list[str] = []

    def watch() -> None:
        deadline = time.monotonic() + 30
        while not seen and time.monotonic() < deadline:
            seen.extend(line for line in site.lines if "waiting until it has ended" in line)
            time.sleep(0.02)
        let_go.set()

    watching = threading.Thread(target=watch)
    watching.start()
    again = made(site, about=Description("another name", "", ""))
    watching.join()
    holding.join()
    assert seen == [
        f"another command is working on the dataset {dataset.generated_uid} (process {os.getpid()}):"
        " waiting until it has ended"
    ]
    assert again.name == "another name"
    assert find_dataset(site.home, dataset.generated_uid[:8]).name == "another name"


def test_a_killed_client_frees_the_dataset(site: Site) -> None:
    dataset = made(site)
    hold = (
        "import sys, time; from pathlib import Path; from medperf.files import locked\n"
        "with locked(Path(sys.argv[1]), what='x'): print('held', flush=True); time.sleep(600)"
    )
    lock = site.home.datasets / ".locks" / dataset.generated_uid
    with subprocess.Popen([sys.executable, "-c", hold, str(lock)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(Busy, match=str(holder.pid)), alone_with(site.home, dataset):
            pass
        holder.kill()
    with alone_with(site.home, dataset):
        pass


def test_a_container_that_is_not_what_is_registered_is_not_run(site: Site) -> None:
    view = site.shelf.register(1, Role.PREPARATION)
    for change in ({"manifest": view.manifest + "\n"}, {"parameters": "fault: x\n"}, {"hash": "0" * 64}):
        with pytest.raises(IntegrityError, match="not what its registered hash says"):
            site.fetch(view.model_copy(update=change), Role.PREPARATION)
    url = str(view.additional_files_url)
    site.shelf.files[url] += b"\0"
    with pytest.raises(IntegrityError, match="is registered"):
        site.fetch(view, Role.PREPARATION)


def test_a_container_that_is_not_valid_or_lacks_the_tasks_is_refused(site: Site) -> None:
    view = site.shelf.register(1, Role.MODEL)
    with pytest.raises(UsageError, match="not valid"):
        site.fetch(view.model_copy(update={"is_valid": False}), Role.MODEL)
    with pytest.raises(BadManifest, match=r"tasks\.prepare"):
        site.fetch(view, Role.PREPARATION)


def test_code_that_was_edited_here_does_not_run_under_the_registered_hash(site: Site) -> None:
    container = site.container(1, Role.PREPARATION)
    assert container.code is not None
    (container.code / "main.py").write_text("raise SystemExit('edited')")
    made(site)
