"""Bad input through the real command: each has a clear error that says what to do next, and changes nothing.

The table of all of it, with what a person sees, is docs/bad-input.md.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import medperf
import tutorials
from containers.small import Shelf, Site, archive_of, manifest_of
from containers.wheels import wheel
from medperf.api import Gateway
from medperf.cli.main import run
from medperf.errors import (
    BadManifest,
    ClientError,
    ContainerFailed,
    IntegrityError,
    StorageFailed,
    UsageError,
)
from medperf.home import Home
from medperf.journal import Journal
from medperf.manifest import Role
from medperf.preferences import Preferences
from medperf.results import find_result, local_results
from medperf_contracts.packing import pack
from peers import answers
from peers.benchmark_server import BenchmarkServer
from peers.scripted_peer import Reply, ScriptedPeer

TUTORIALS = Path(str(tutorials.__file__)).parent
AS_ROOT = os.getuid() == 0
PLAIN_USER = 1_900_000_000 + os.getpid()
ESCAPE = "\x1b"


@dataclass
class Person:
    """A data owner at a terminal's command line, whose server knows one benchmark."""

    site: Site
    server: BenchmarkServer
    capture: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def types(self, *arguments: str) -> int:
        self.capture.readouterr()
        code = run(arguments)
        said = self.capture.readouterr()
        self.out, self.err = said.out, said.err
        return code

    def creates(self, **changed: str) -> int:
        given = {
            "--name": "mytestdata",
            "--data_path": str(self.site.data),
            "--labels_path": str(self.site.labels),
            "--benchmark": "1",
            **{f"--{name}": value for name, value in changed.items()},
        }
        return self.types("dataset", "create", *(word for pair in given.items() for word in pair))

    def is_refused(self, code: int, error: type[ClientError], *said: str) -> None:
        """The command ended with this error's code, its words and what to do; and nothing was kept or sent."""
        assert code == error.exit_code, self.err
        for words in said:
            assert words in self.err, self.err
        assert re.search(r"^What to do: \S", self.err, re.MULTILINE), self.err
        assert "Traceback" not in self.err
        assert not set(self.out + self.err) & {ESCAPE, "\x07", "\x9b", "\u202e"}
        home = self.site.home
        assert [path.name for path in home.datasets.iterdir() if path.name != ".locks"] == self.had_datasets
        assert local_results(home) == []
        assert list(home.results.rglob("result.yaml")) == []
        # What tasks wrote that ended well waits for the same command.
        kept = {run.id for run in Journal(home.journal).runs() if run.holds_outputs}
        assert {folder.parent.name for folder in home.runs.glob("*/*/")} == kept
        assert self.server.posted == []

    @property
    def had_datasets(self) -> list[str]:
        return self._had

    def has_prepared(self) -> None:
        """The dataset is prepared and registered, as dataset 9; what comes next may fail."""
        assert self.creates() == 0, self.err
        found = re.search(r"Generated UID: ([0-9a-f]{40})", self.out)
        assert found
        assert self.types("dataset", "submit", "--data_uid", found[1], "--yes") == 0, self.err
        self.server.posted.clear()
        self._had = [found[1]]

    def runs(self, *more: str) -> int:
        return self.types("benchmark", "run", "--benchmark", "1", "--data_uid", "9", *more)

    _had: list[str] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self._had = []


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Person]:
    site = Site(tmp_path)
    for number, role in ((1, Role.PREPARATION), (2, Role.MODEL), (3, Role.METRICS), (4, Role.MODEL)):
        site.shelf.register(number, role)
    server = BenchmarkServer(site.shelf)
    server.models = [4]
    with ScriptedPeer(server) as peer:
        monkeypatch.setenv("MEDPERF_SERVER", peer.url)
        monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "medperf"))
        site.home = Home.at(peer.url)
        site.journal = Journal(site.home.journal)
        Preferences(platform="sandbox").save(site.home.preferences)
        with Gateway(site.home) as gateway:
            gateway.login("ada", "test")
        yield Person(site, server, capfd)


# Paths


def test_a_path_that_is_not_there_is_named(person: Person) -> None:
    gone = str(person.site.folder / "gone")
    for place in ("data_path", "labels_path"):
        person.is_refused(person.creates(**{place: gone}), UsageError, f"{gone} cannot be read")
    assert person.site.journal.runs() == []


@pytest.mark.parametrize("place", ["data", "labels"])
def test_an_empty_folder_is_named(person: Person, place: str) -> None:
    empty = person.site.folder / "empty"
    empty.mkdir()
    person.is_refused(person.creates(**{f"{place}_path": str(empty)}), UsageError, f"{empty} is empty")
    assert person.site.journal.runs() == []


def test_telling_of_a_preparation_that_does_not_report_is_refused_before_it_runs(person: Person) -> None:
    given = ("--data_path", str(person.site.data), "--labels_path", str(person.site.labels), "--benchmark", "1")
    code = person.types("dataset", "create", "--name", "mine", *given, "--send_progress")
    person.is_refused(code, UsageError, "does not report case by case", "Leave out --send_progress")
    assert person.site.journal.runs() == []


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside.txt", "/etc"])
def test_a_link_that_leaves_the_input_is_named_and_not_followed(person: Person, target: str) -> None:
    (person.site.folder / "raw" / "outside.txt").write_text("another's")
    (person.site.data / "scan.txt").symlink_to(target)
    code = person.creates()
    person.is_refused(code, IntegrityError, "The link scan.txt in", f"leads out of the folder, to {target}")
    assert "root:" not in person.err


def test_a_link_cannot_paint_the_terminal(person: Person) -> None:
    (person.site.data / f"{ESCAPE}[31mred\n").symlink_to(f"/etc/{ESCAPE}]0;owned\x07")
    person.is_refused(person.creates(), IntegrityError, "\\x1b[31mred", "/etc/\\x1b]0;owned")


@pytest.mark.parametrize("name", ["two\nlines", "", "x" * 129, f"{ESCAPE}[31m"])
def test_a_datasets_name_that_cannot_be_kept_is_refused_before_the_work(person: Person, name: str) -> None:
    person.is_refused(person.creates(name=name), UsageError, "The dataset's name cannot be used", "Change --name")
    assert person.site.journal.runs() == []


def test_names_of_any_letters_are_fine(person: Person) -> None:
    site = person.site
    strange = site.folder / "my data 'ü' \n 数据"
    site.data.rename(strange)
    names = ["with space.txt", "fünf 数据.txt", "two\nlines.txt", "-rf.txt", "$HOME `x`.txt", "%s.txt"]
    for name in names:
        (strange / name).write_text("text")
    (strange / os.fsdecode(b"not utf-8 \xff.txt")).write_text("text")
    assert person.creates(name="Röntgen 数据 of 2026", data_path=str(strange)) == 0, person.err
    (folder,) = (path for path in site.home.datasets.iterdir() if path.name != ".locks")
    kept = {os.fsencode(path.name) for path in (folder / "data").iterdir()}
    assert {os.fsencode(name) for name in names} | {b"not utf-8 \xff.txt"} <= kept
    # Altered, each is named so that it is one line and paints nothing.
    (folder / "data" / "two\nlines.txt").write_text("ALTERED")
    (folder / "data" / os.fsdecode(b"not utf-8 \xff.txt")).write_text("ALTERED")
    code = person.types("dataset", "submit", "--data_uid", folder.name, "--yes")
    assert code == IntegrityError.exit_code
    assert "data/not utf-8 \\xff.txt, data/two\\nlines.txt" in person.err


# As somebody who is not root: who root is may read and write everything


@pytest.fixture(scope="module")
def library() -> Iterator[Path]:
    """The client and what it imports, where a plain user can read it."""
    modules = (
        *("medperf", "medperf_contracts", "yaml", "_yaml", "httpx", "httpcore", "h11", "anyio", "idna", "certifi"),
        *("click", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"),
        *("tabulate", "blake3"),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for module in modules:
            found = importlib.util.find_spec(module)
            assert found is not None, module
            assert found.origin is not None, module
            source = Path(found.origin)
            if found.submodule_search_locations:
                shutil.copytree(source.parent, folder / module, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield folder


@dataclass
class PlainUser:
    """A person without any privilege: raw data, a local folder, and the command."""

    folder: Path
    library: Path
    url: str

    def types(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        python = "/usr/bin/python3" if AS_ROOT else sys.executable
        prefix = ["setpriv", f"--reuid={PLAIN_USER}", f"--regid={PLAIN_USER}", "--clear-groups"] if AS_ROOT else []
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MEDPERF")}
        environment = {
            **kept,
            "HOME": str(self.folder / "home"),
            "MEDPERF_HOME": str(self.folder / "home" / "medperf"),
            "MEDPERF_SERVER": self.url,
            "PYTHONPATH": str(self.library),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.run(
            [*prefix, python, "-c", "from medperf.cli.main import main; main()", *arguments],
            env=environment,
            input="test\n",
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",
            check=False,
        )

    def creates(self) -> subprocess.CompletedProcess[str]:
        paths = ("--data_path", f"{self.folder}/images", "--labels_path", f"{self.folder}/labels")
        about = ("--name", "mine", "--benchmark", "1", "--platform", "sandbox")
        return self.types("dataset", "create", *about, *paths)


@pytest.fixture
def plain_user(library: Path) -> Iterator[PlainUser]:
    shelf = Shelf()
    shelf.register(1, Role.PREPARATION)
    # Not pytest's own folder: only root may pass it.
    with tempfile.TemporaryDirectory() as name, ScriptedPeer(BenchmarkServer(shelf)) as peer:
        folder = Path(name)
        for part in ("images", "labels", "home"):
            (folder / part).mkdir()
        (folder / "images" / "case0.txt").write_text("one")
        (folder / "images" / "case1.txt").write_text("two")
        (folder / "labels" / "labels.csv").write_text("case0,1\ncase1,0\n")
        for path in (folder, *folder.rglob("*")):
            if AS_ROOT:
                os.chown(path, PLAIN_USER, PLAIN_USER)
        user = PlainUser(folder, library, peer.url)
        done = user.types("login", "--username", "ada", "--password_stdin")
        assert done.returncode == 0, done.stderr
        yield user
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)


@pytest.mark.parametrize("hidden", ["images", "images/case1.txt", "images/deeper", "labels/labels.csv", "labels"])
def test_what_the_person_may_not_read_is_named(plain_user: PlainUser, hidden: str) -> None:
    path = plain_user.folder / hidden
    if not path.exists():
        path.mkdir()
        if AS_ROOT:
            os.chown(path, PLAIN_USER, PLAIN_USER)
    path.chmod(0)
    done = plain_user.creates()
    assert done.returncode == UsageError.exit_code, done.stderr
    assert f"Error: {path} cannot be read: Permission denied" in done.stderr
    assert "What to do: " in done.stderr
    kept = list((plain_user.folder / "home").glob("medperf/*/datasets/*"))
    assert [entry.name for entry in kept if entry.name != ".locks"] == []


def test_a_read_only_data_folder_is_enough(plain_user: PlainUser) -> None:
    for part in ("images", "labels"):
        for path in (plain_user.folder / part).iterdir():
            path.chmod(0o400)
        (plain_user.folder / part).chmod(0o500)
    before = {path: path.stat().st_mtime_ns for path in plain_user.folder.rglob("*") if "home" not in path.parts}
    done = plain_user.creates()
    assert done.returncode == 0, done.stderr
    raw = {path: path.stat().st_mtime_ns for path in before}
    assert raw == before


def test_a_local_folder_that_cannot_be_written_is_named(plain_user: PlainUser) -> None:
    (local,) = (place for place in (plain_user.folder / "home" / "medperf").iterdir() if place.is_dir())
    for path in (local / "datasets", local / "runs", local):
        path.mkdir(exist_ok=True)
        path.chmod(0o500)
        if AS_ROOT:
            os.chown(path, PLAIN_USER, PLAIN_USER)
    done = plain_user.creates()
    assert done.returncode == StorageFailed.exit_code, done.stderr
    assert str(local) in done.stderr
    assert re.search("What to do: .*permissions", done.stderr)
    assert "Traceback" not in done.stderr


# What a container is


def spoiled(change: Callable[[dict[str, Any]], object]) -> str:
    manifest = manifest_of(Role.PREPARATION)
    change(manifest)
    return json.dumps(manifest)


CLIMBING = {"type": "directory", "default": "../../etc"}


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("tasks: [half", "is not valid YAML"),
        ("", "the manifest is missing"),
        ("just words", "the manifest must be a mapping"),
        (spoiled(lambda it: it.pop("tasks")), "tasks is missing"),
        (spoiled(lambda it: it["tasks"].pop("sanity_check")), "tasks.sanity_check is missing"),
        (
            spoiled(lambda it: it["tasks"]["prepare"]["parameters"]["inputs"].update(data_path=CLIMBING)),
            "climbs out of the workspace",
        ),
        (
            spoiled(lambda it: it["tasks"]["prepare"]["parameters"]["inputs"].update(more="/etc/passwd")),
            "is an absolute path",
        ),
        ("a: &a [1]\nb: *a\n", "anchor or alias"),
        ("tasks: " + "[" * 10_000, "nested deeper"),
        (f'name: "{ESCAPE}[31m"', "control characters"),
        ("x: " + "y" * 2_000_000, "the limit is"),
    ],
    ids=[
        "half",
        "empty",
        "words",
        "no tasks",
        "one task less",
        "climbs",
        "absolute",
        "alias",
        "deep",
        "paint",
        "big",
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused_before_anything_runs(
    person: Person, manifest: str, said: str
) -> None:
    archive = archive_of("main.py", b"raise SystemExit(0)")
    person.site.shelf.add(1, Role.PREPARATION, manifest=manifest, parameters="", archive=archive)
    person.is_refused(person.creates(), BadManifest, said, "owner must")
    assert person.site.journal.runs() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"manifest": "{}"}, "The manifest of container 1"),
        ({"parameters": "fault: another"}, "The parameters of container 1"),
        ({"hash": "0" * 64}, "The hash of container 1"),
        ({"additional_files_hash": "0" * 64}, "The hash of container 1"),
    ],
)
def test_a_part_with_another_hash_is_named_and_not_run(person: Person, change: dict[str, str], said: str) -> None:
    shelf = person.site.shelf
    shelf.views[1] = shelf.views[1].model_copy(update=change)
    person.is_refused(
        person.creates(), IntegrityError, f"{said} (small-preparation-1) is not what", "Do not run it"
    )
    assert person.site.journal.runs() == []


def test_an_archive_that_was_replaced_is_not_run(person: Person) -> None:
    url = str(person.site.shelf.views[1].additional_files_url)
    person.site.shelf.files[url] += b"\0"
    person.is_refused(person.creates(), IntegrityError, url, "is registered", "Do not use it")
    assert list(person.site.home.assets.rglob("*.tar*")) == []


def test_a_package_with_another_hash_is_not_installed(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = person.site.folder / "wheels"
    wheels.mkdir()
    wheel(wheels)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    needs = [{"name": "tiny==1.0", "hashes": [f"sha256:{'0' * 64}"]}]
    manifest = spoiled(lambda it: it["sandbox"].update(packages=needs))
    archive = archive_of("main.py", b"raise SystemExit(0)")
    person.site.shelf.add(1, Role.PREPARATION, manifest=manifest, parameters="", archive=archive)
    person.is_refused(person.creates(), IntegrityError, "not the one that its manifest names", "Do not go on")


def test_prepared_data_that_was_altered_is_not_run_or_sent(person: Person) -> None:
    person.has_prepared()
    (person.site.home.datasets / person.had_datasets[0] / "data" / "case1.txt").write_text("ALTERED")
    person.is_refused(person.runs(), IntegrityError, "changed: data/case1.txt", "Prepare the data again")


def tar(*entries: tarfile.TarInfo, content: bytes = b"x") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for entry in entries:
            entry.size = len(content) if entry.isreg() else 0
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


ZEROS = gzip.compress(tar(entry("zeros"), content=bytes(100 * 1024**2)), 9)


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (tar(entry("../../../climbed")), "climbs out with '..'"),
        (tar(entry("/tmp/climbed")), "is an absolute path"),
        (tar(entry("a", tarfile.SYMTYPE, "/etc/passwd")), "is a link"),
        (tar(entry("a"), entry("b", tarfile.LNKTYPE, "a")), "is a link"),
        (tar(entry("a", tarfile.CHRTYPE)), "is a device or pipe"),
        (tar(entry("a", tarfile.FIFOTYPE)), "is a device or pipe"),
        (ZEROS, "its content is larger than"),
        (b"<html>404</html>", "cannot be unpacked"),
        (tar(entry("a"))[:700], "cannot be unpacked"),
        (tar(entry(f"{ESCAPE}[31m", tarfile.SYMTYPE, "x")), "\\x1b[31m"),
    ],
    ids=[
        "climbs",
        "absolute",
        "link",
        "hard link",
        "device",
        "pipe",
        "1,000 times",
        "no archive",
        "half",
        "paints",
    ],
)
def test_an_archive_that_could_do_harm_is_refused_and_leaves_nothing(
    person: Person, archive: bytes, said: str
) -> None:
    manifest = json.dumps(manifest_of(Role.PREPARATION))
    person.site.shelf.add(1, Role.PREPARATION, manifest=manifest, parameters="", archive=archive)
    person.is_refused(person.creates(), BadManifest, said, "owner must make it again")
    # The archive itself stays, by its hash: it is what is registered.
    assert list(person.site.home.containers.rglob("*/additional_files/*")) == []
    assert not list(person.site.folder.rglob("climbed"))
    assert person.site.journal.runs() == []


def test_the_archive_that_is_refused_for_its_growth_grows_a_thousandfold() -> None:
    assert 900 * len(ZEROS) < 100 * 1024**2


# What a container does


def broken(person: Person, role: Role, fault: str, *more: str) -> int:
    """Run the command that meets a container of this role with this fault."""
    if role is Role.PREPARATION:
        person.site.shelf.register(1, role, fault=fault)
        return person.creates()
    person.has_prepared()
    person.site.shelf.register(4 if role is Role.MODEL else 3, role, fault=fault)
    return person.runs(*more)


@pytest.mark.parametrize(
    ("role", "task"), [(Role.PREPARATION, "prepare"), (Role.MODEL, "infer"), (Role.METRICS, "evaluate")]
)
def test_a_container_that_exits_1_is_told_with_its_task_and_log(person: Person, role: Role, task: str) -> None:
    code = broken(person, role, "exits 1")
    person.is_refused(code, ContainerFailed, f"The task '{task}' ended with exit code 1", "The whole log: ")


@pytest.mark.parametrize("fault", ["hangs", "chatters"])
def test_a_container_beyond_its_time_is_ended_whether_silent_or_not(person: Person, fault: str) -> None:
    began = time.monotonic()
    code = broken(person, Role.MODEL, fault, "--time_limit", "1")
    assert time.monotonic() - began < 30
    person.is_refused(
        code, ContainerFailed, "The task 'infer' ran longer than its limit of 1 s", "Give it more time"
    )


def test_of_a_container_that_chatters_only_so_much_is_shown(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medperf.engines.logs._SHOWN_CHARACTERS_MOST", 1000)
    broken(person, Role.MODEL, "chatters", "--time_limit", "1")
    assert "It says more than is shown here: the log is" in person.err
    assert 50 < person.err.count("more and more") < 100
    (log,) = (path for path in person.site.home.runs.glob("*/task.log") if b"more and more" in path.read_bytes())
    assert log.read_bytes().count(b"more and more") > 100


def test_a_container_that_paints_its_output_paints_no_terminal(person: Person) -> None:
    code = broken(person, Role.MODEL, "paints")
    person.is_refused(code, ContainerFailed, "The task 'infer' ended with exit code 3", "red")
    (log,) = (path for path in person.site.home.runs.glob("*/task.log") if b"owned" in path.read_bytes())
    assert b"\x1b[2J" in log.read_bytes(), "the log keeps it as it was"


def test_a_preparation_that_writes_nothing_is_told(person: Person) -> None:
    person.is_refused(broken(person, Role.PREPARATION, "nothing"), IntegrityError, "There is no file in")


def test_a_link_among_prepared_data_is_refused(person: Person) -> None:
    code = broken(person, Role.PREPARATION, "link")
    person.is_refused(code, ContainerFailed, "The container wrote a link: output_path/link")
    assert "root:" not in person.err


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("nothing", "is not there"),
        ("not_yaml", "is not valid YAML"),
        ("list", "a mapping of names to values is needed"),
        ("link", "The container wrote a link"),
        ("100 MB", "is larger than 1,048,576 bytes"),
        ("deep", "nested deeper than 50 levels"),
        ("deep mappings", "nested deeper than 50 levels"),
        ("controls", "control characters"),
    ],
)
def test_a_metrics_file_that_is_none_is_refused(person: Person, fault: str, said: str) -> None:
    code = broken(person, Role.METRICS, fault)
    person.is_refused(code, ContainerFailed, said)
    assert "root:" not in person.err


def strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_an_undefined_metric_is_null_everywhere_and_said_to_be_undefined(person: Person) -> None:
    assert broken(person, Role.METRICS, "undefined") == 0, person.err
    expected = {"auc": None, "worst": {"low": None, "high": None}, "list": [None, 1]}
    assert find_result(person.site.home, "b1m4d9").evaluation.metrics == expected

    assert person.types("result", "view", "b1m4d9") == 0
    assert person.out.count("null  # undefined") == 4
    assert yaml.safe_load(person.out)["evaluation"]["metrics"] == expected
    assert "submitted_id: null\n" in person.out, "what is not there yet is not undefined"
    assert person.types("result", "view", "b1m4d9", "--json") == 0
    assert strictly(person.out)["evaluation"]["metrics"] == expected

    assert person.types("result", "submit", "--result", "b1m4d9", "--yes") == 0, person.err
    assert "auc: null  # undefined" in person.out
    assert [body["metrics"] for _, body in person.server.posted] == [expected]
    sent = [asked for asked in person.server.asked if asked.path == "/api/v1/results"]
    assert strictly(sent[0].body.decode())["metrics"] == expected
    (dataset,) = person.had_datasets
    assert person.types("dataset", "view", dataset) == 0
    assert "mean: null  # undefined" in person.out


def test_what_the_server_shows_as_undefined_is_said_so_too(person: Person) -> None:
    script = person.server
    metrics = {"auc": None}
    asked_for = "/api/v1/results/5"

    def answer(asked: Any) -> Reply:
        return Reply.of(answers.result(5, metrics=metrics)) if asked.path == asked_for else script(asked)

    with ScriptedPeer(answer) as peer:
        Home.at(peer.url)
        shutil.copytree(person.site.home.root, Home.at(peer.url).root)
        assert person.types("--server", peer.url, "result", "view", "5") == 0, person.err
    assert "auc: null  # undefined" in person.out


# Labels that do not match images, in the tutorial's own preparation container


def test_labels_that_do_not_match_images_are_named_by_the_tutorials_preparation(
    person: Person, tmp_path: Path
) -> None:
    folder = TUTORIALS / "preparation"
    packed = tmp_path / "preparation.tar.gz"
    pack(folder / "additional_files", packed)
    person.site.shelf.add(
        1,
        Role.PREPARATION,
        manifest=(folder / "mlcube.yaml").read_text(),
        parameters=(folder / "workspace" / "parameters.yaml").read_text(),
        archive=packed.read_bytes(),
    )
    (person.site.labels / "labels.csv").write_text("image,finding\ncase0.txt,1\ncase9.txt,0\ncase1.txt,0\n")
    code = person.creates()
    person.is_refused(
        code,
        ContainerFailed,
        "The task 'prepare' ended with exit code 1",
        "images and labels do not match",
        "'case9.txt' has a label but no image",
        "'case2.txt' has an image but no label",
        "If it names something of your data, mend that and try again",
    )


def test_the_client_that_a_plain_user_runs_is_the_one_that_is_tested(library: Path) -> None:
    ours = Path(str(medperf.__file__)).parent
    assert (library / "medperf" / "wire.py").read_bytes() == (ours / "wire.py").read_bytes()
    assert sys.version_info[:2] == (3, 11) or not AS_ROOT, (
        "the system's Python must load the same compiled modules"
    )
