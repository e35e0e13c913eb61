"""How far a preparation is, as a site tells a benchmark's owner: only if it agrees, and nothing but numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pexpect
import pytest

from containers import cases
from containers.attack import eventually
from medperf.api import Gateway
from medperf.errors import LoginRequired
from medperf.home import Home
from medperf.manifest import Role
from medperf.preparations import InPreparation, preparations
from medperf.telling import ANSWERS
from peers.people import (
    PASSWORD,
    Parts,
    Person,
    add_account,
    log_in,
    open_benchmark,
    register_container,
    register_folder,
    serve_demo_data,
)
from tutorials.path import EmbeddedServer

MEDPERF = str(Path(sysconfig.get_path("scripts"), "medperf"))
# One case waits for a person, and is made so by each command; the others are done at once.
NOW = [{"stage": -5.1, "cases": 1}, {"stage": 8.0, "cases": 2}]


@dataclass
class World:
    """A server with a benchmark whose preparation goes case by case, its people, and the data of a site."""

    server: EmbeddedServer
    committee: Person
    site: Person
    other: Person
    benchmark: int
    data: Path
    begun: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def create(self) -> list[str]:
        paths = ["--data_path", str(self.data), "--labels_path", str(self.data.with_name("labels"))]
        return ["dataset", "create", "--name", "mine", *paths, "--benchmark", str(self.benchmark)]

    @property
    def home(self) -> Home:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("MEDPERF_HOME", self.site.environment["MEDPERF_HOME"])
            return Home.at(self.server.url)

    @property
    def ongoing(self) -> InPreparation:
        [ongoing] = preparations(self.home, on_damaged=lambda *_: pytest.fail("damaged"))
        return ongoing

    def told(self, who: Person, *options: object) -> list[dict[str, Any]]:
        """What a person is shown of the site's preparations for the benchmark."""
        found: list[dict[str, Any]] = json.loads(
            who.do("dataset", "progress", "--benchmark", self.benchmark, "--json", *options)
        )
        return found

    def stages(self) -> list[list[dict[str, Any]]]:
        """What the committee is shown of this site's."""
        return [one["stages"] for one in self.told(self.committee) if one["owner_name"] == self.site.name]

    def prepared(self, *arguments: str, code: int = 7) -> str:
        """What a command of the site's says that prepares; the case that waits for a person fails it."""
        self.site.try_to(*arguments)
        assert self.site.code == code, self.site.said
        return self.site.said

    def begin(self) -> subprocess.Popen[str]:
        """Have a command of the site's prepare that tells, until something was told."""
        command = subprocess.Popen(
            [MEDPERF, *self.create, "--send_progress"],
            env={**os.environ, **self.site.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.begun.append(command)
        assert eventually(lambda: self.stages() != [], seconds=60)
        return command

    def again(self, *arguments: str, code: int = 7) -> str:
        return self.prepared("dataset", "prepare", "--data_uid", self.ongoing.uid, *arguments, code=code)


@dataclass
class Opened:
    """A server, and the benchmark that the first test opens on it by its people's commands."""

    server: EmbeddedServer
    folder: Path
    benchmark: int | None = None


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    server = EmbeddedServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield Opened(server, tmp_path_factory.mktemp("people"))
    server.stop()


@pytest.fixture
def world(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[World]:
    server = opened.server

    def person(name: str, folder: Path) -> Person:
        return Person(name, folder, server.url, monkeypatch, capsys)

    def joined(someone: Person, *, is_admin: bool = False) -> Person:
        add_account(server, someone.name, is_admin=is_admin)
        return log_in(someone)

    committee = person("committee", opened.folder / "committee")
    if opened.benchmark is None:
        joined(committee)
        administrator = joined(person("admin", opened.folder / "admin"), is_admin=True)
        preparation = register_folder(committee, server, cases.write(committee.machine / "cases"))
        others = (register_container(committee, server, role) for role in (Role.MODEL, Role.METRICS))
        parts = Parts(preparation, *others, serve_demo_data(committee, server))
        opened.benchmark = open_benchmark(committee, administrator, parts)
    data = tmp_path / "raw"
    data.mkdir()
    for number, text in enumerate(("one", "unclear", "fifteen")):
        (data / f"case{number}.txt").write_text(text)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "labels.csv").write_text("case0,0\ncase1,1\ncase2,0\n")
    site, other = (joined(person(f"{name}-{uuid.uuid4().hex[:8]}", tmp_path / name)) for name in ("site", "other"))
    made = World(server, committee, site, other, opened.benchmark, data)
    yield made
    for command in made.begun:
        if command.poll() is None:
            command.kill()
        command.communicate()


def test_the_benchmarks_owner_is_told_the_numbers_and_nothing_else_reaches_the_server(world: World) -> None:
    said = world.prepared(*world.create, "--send_progress")
    assert f"telling the owner of benchmark {world.benchmark}: 1 at -5.1, 2 at 8" in said
    shown = world.told(world.committee)[-1]
    assert (shown["stages"], shown["owner_name"]) == (NOW, world.site.name)
    assert world.told(world.other) == []
    table = world.committee.do("dataset", "progress")
    assert "1 at -5.1, 2 at 8" in " ".join(table.split())
    databases = list(world.server.home.rglob("*.db*"))
    kept = b"".join(file.read_bytes() for file in databases)
    assert str(shown["preparation"]).replace("-", "").encode() in kept
    for name in (b"Mrs. Smith", b"MANUAL_REVIEW", b"case1", world.ongoing.uid.encode()):
        assert name not in kept
    # Each command tells of the same preparation, and to the end.
    (world.ongoing.data / "case1.txt").write_text("mended")
    world.again(code=0)
    [mine] = world.told(world.site)
    assert (mine["id"], mine["stages"]) == (shown["id"], [{"stage": 8.0, "cases": 3}])
    # That stays until it is taken back, and then nothing is left of it.
    world.site.do("dataset", "withdraw_progress", "mine")
    assert world.told(world.site) == []


@pytest.mark.parametrize("option", [(), ("--yes",), ("--no_send_progress",)], ids=str)
def test_nobody_is_told_where_nobody_agreed(world: World, option: tuple[str, ...]) -> None:
    said = world.prepared(*world.create, *option)
    assert world.stages() == []
    assert "telling" not in said
    asked_for = f"medperf dataset prepare --data_uid {world.ongoing.uid} --send_progress"
    assert (asked_for in said) == (option != ("--no_send_progress",))


@pytest.mark.parametrize(("answer", "is_told"), [("n", False), ("", False), ("\4", False), ("y", True)])
def test_in_a_terminal_it_is_asked_once_for_each_preparation(world: World, answer: str, is_told: bool) -> None:
    terminal = world.site.at_a_terminal(f"{MEDPERF} {' '.join(world.create)}")
    terminal.expect("No names, no texts, nothing")
    terminal.expect("Tell them")
    assert world.stages() == []
    terminal.send(answer if answer == "\4" else f"{answer}\n")
    terminal.expect(pexpect.EOF)
    assert world.stages() == [NOW] * is_told
    again = world.site.at_a_terminal(f"{MEDPERF} dataset prepare --data_uid {world.ongoing.uid}")
    again.expect(pexpect.EOF)
    assert "Tell them" not in again.before
    assert ("telling the owner" in again.before) == is_told


def test_yes_to_every_question_is_no_yes_to_this_one(world: World) -> None:
    terminal = world.site.at_a_terminal(f"{MEDPERF} {' '.join(world.create)} --yes")
    terminal.expect(pexpect.EOF)
    assert "Tell them" not in terminal.before
    assert "is not told how far it is" in terminal.before
    assert world.stages() == []


def test_offline_nobody_is_told_and_nobody_is_asked(world: World) -> None:
    world.prepared(*world.create, "--send_progress")
    before = world.told(world.site)
    bundle = world.site.machine / "bundle.tar"
    world.site.do("bundle", "export", "--benchmark", world.benchmark, "-o", bundle)
    world.site.do("bundle", "import", bundle, "--yes")
    said = world.again("--offline")
    assert "Offline the benchmark's owner cannot be told" in said
    assert "telling" not in said
    assert world.told(world.site) == before


def test_what_was_told_can_be_taken_back_and_is_told_no_more(world: World) -> None:
    world.prepared(*world.create, "--send_progress")
    assert world.stages() == [NOW]
    said = world.site.do("dataset", "withdraw_progress", world.ongoing.uid)
    assert f"the owner of benchmark {world.benchmark} is not shown it any more" in said
    assert world.stages() == world.told(world.site) == []
    world.again()
    assert world.stages() == []
    world.site.do("dataset", "withdraw_progress", "mine")
    world.again("--send_progress")
    assert world.stages() == [NOW]
    [mine] = world.told(world.site, "--mine")
    world.site.do("dataset", "withdraw_progress", mine["id"])
    assert world.stages() == []
    world.again()
    assert world.stages() == []


def test_nothing_can_be_taken_back_that_was_not_told(world: World) -> None:
    world.prepared(*world.create, "--send_progress")
    told = world.told(world.committee)[-1]
    for who, given in ((world.site, "prep-000000000000"), (world.site, "9999"), (world.committee, told["id"])):
        who.try_to("dataset", "withdraw_progress", given)
        assert who.code == 2
        assert "medperf dataset progress --mine" in who.said
    assert world.stages() == [NOW]


def test_where_the_server_cannot_be_asked_it_is_told_no_more_at_least(world: World) -> None:
    world.prepared(*world.create, "--send_progress")
    with Gateway(world.home) as gateway:
        gateway.logout()
    printed = world.site.try_to("dataset", "withdraw_progress", world.ongoing.uid)
    assert f"Nothing more will be told of {world.ongoing.uid}." in printed
    assert (world.site.code, "medperf login" in world.site.said) == (LoginRequired.exit_code, True)
    with Gateway(world.home) as gateway:
        gateway.login(world.site.name, PASSWORD)
    assert "telling" not in world.again()
    assert world.stages() == [NOW]
    world.site.do("dataset", "withdraw_progress", world.ongoing.uid)
    assert world.stages() == []


def test_a_name_that_two_preparations_have_takes_neither_back(world: World) -> None:
    world.prepared(*world.create, "--send_progress")
    data = world.data
    world.data = data.rename(data.with_name("moved"))
    world.prepared(*world.create, "--send_progress")
    assert world.stages() == [NOW, NOW]
    world.site.try_to("dataset", "withdraw_progress", "mine")
    assert (world.site.code, "More than one was told of" in world.site.said) == (2, True)
    assert world.stages() == [NOW, NOW]
    for one in world.told(world.site):
        world.site.do("dataset", "withdraw_progress", one["id"])
    assert world.stages() == []


def test_what_is_taken_back_while_a_command_prepares_is_not_told_again_by_it(world: World) -> None:
    (world.data / "case2.txt").write_text("slow 8")
    command = world.begin()
    world.site.do("dataset", "withdraw_progress", world.ongoing.uid)
    said, _ = command.communicate(timeout=60)
    assert "3 cases: 1 at -5.1 MANUAL_REVIEW_REQUIRED, 2 at 8 DONE" in said
    assert world.stages() == []


def test_what_is_taken_back_on_another_machine_is_not_told_again_by_this_one(world: World, tmp_path: Path) -> None:
    (world.data / "case2.txt").write_text("slow 8")
    command = world.begin()
    laptop = Person(
        world.site.name, tmp_path / "laptop", world.server.url, world.site.monkeypatch, world.site.capsys
    )
    log_in(laptop)
    [told] = world.told(laptop, "--mine")
    assert "Taken back" in laptop.do("dataset", "withdraw_progress", told["id"])
    said, _ = command.communicate(timeout=60)
    assert "was taken back" in said
    assert world.stages() == []
    assert "telling" not in world.again()


def test_whoever_logs_in_meanwhile_tells_nothing(world: World) -> None:
    (world.data / "case2.txt").write_text("slow 8")
    command = world.begin()
    before = world.stages()
    with Gateway(world.home) as gateway:
        gateway.login(world.other.name, PASSWORD)
    said, _ = command.communicate(timeout=60)
    assert f"{world.other.name} is logged in here now" in said
    assert (world.stages(), world.told(world.other)) == (before, [])


def test_of_another_person_on_the_machine_nothing_is_lost_that_was_told(world: World) -> None:
    world.prepared(*world.create, "--send_progress")
    with Gateway(world.home) as gateway:
        gateway.login(world.other.name, PASSWORD)
    world.again("--no_send_progress")
    assert "theirs to take back" in world.site.do("dataset", "withdraw_progress", world.ongoing.uid)
    assert world.stages() == [NOW]
    with Gateway(world.home) as gateway:
        gateway.login(world.site.name, PASSWORD)
    assert "Taken back" in world.site.do("dataset", "withdraw_progress", world.ongoing.uid)
    assert world.stages() == []


def test_an_answer_is_of_who_gave_it(world: World) -> None:
    world.prepared(*world.create, "--send_progress")
    with Gateway(world.home) as gateway:
        gateway.login(world.other.name, PASSWORD)
    said = world.again()
    assert "telling" not in said
    assert "is not told how far it is" in said


def test_another_preparation_of_the_same_data_is_asked_for_anew(world: World) -> None:
    world.prepared(*world.create, "--send_progress")
    (world.ongoing.data / "case1.txt").write_text("mended")
    world.again(code=0)
    said = world.prepared(*world.create)
    assert "telling" not in said
    assert "is not told how far it is" in said
    assert world.stages() == [[{"stage": 8.0, "cases": 3}]]
    world.site.do("dataset", "withdraw_progress", world.ongoing.uid)
    assert world.stages() == []


def test_an_answer_that_cannot_be_kept_stops_no_preparation(world: World) -> None:
    world.prepared(*world.create)
    (world.ongoing.folder / ANSWERS).mkdir()
    said = world.again("--send_progress")
    assert "the answer could not be kept" in said
    assert "'sanity_check' ended with exit code 4" in said
    assert world.stages() == []


def test_a_server_that_is_gone_does_not_stop_a_preparation(world: World) -> None:
    (world.data / "case2.txt").write_text("slow 10")
    command = world.begin()
    world.server.stop()
    try:
        said, _ = command.communicate(timeout=90)
    finally:
        world.server.start()
    assert command.returncode == 7
    assert "was not told, as far as is known" in said
    assert "'sanity_check' ended with exit code 4" in said
    assert world.stages() == [[{"stage": -5.1, "cases": 1}, {"stage": 8.0, "cases": 1}]]
