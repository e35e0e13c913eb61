"""Which engine runs a container and why: said, asked, remembered, never changed silently."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import click
import docker
import pytest

from medperf.cli.engines import How, make_engines
from medperf.cli.main import cli
from medperf.cli.session import Session
from medperf.engines.choice import Engines, Platform, Runnable, Source
from medperf.engines.docker import DockerEngine
from medperf.engines.docker_connection import podman
from medperf.engines.sandbox import SandboxEngine
from medperf.errors import ContainerFailed, EngineUnavailable, IntegrityError, NotConfirmed, UsageError
from medperf.manifest import parse_manifest

NAME = "medperf-test/chosen:1.0"
TASKS = "tasks: {infer: {parameters: {inputs: {data_path: {type: directory}}}}}\n"
SANDBOX = "sandbox: {command: [python, main.py]}\n"
IMAGE = f"docker: {{image: '{NAME}'}}\n"
OTHER = "ab" * 32


@pytest.fixture
def named(base_image: str) -> str:
    """The SHA-256 of an image that is here under `NAME`."""
    with closing(docker.from_env()) as daemon:
        daemon.images.get(f"sha256:{base_image}").tag(NAME)
    return base_image


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which neither Docker nor Podman answers."""
    for variable in ("DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.setenv(variable, f"unix://{tmp_path / 'nobody.sock'}")


class Person:
    """Who is asked, and what they are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agrees = True
        self.asked: list[str] = []
        self.told: list[str] = []
        self.opened: list[Engines] = []

    def engines(self, platform: str) -> Engines:
        engines = Engines(
            platform=Platform(platform),
            home=self.folder,
            packages_root=self.folder / "packages",
            agree=self.agree,
            on_line=self.told.append,
            say=self.told.append,
        )
        self.opened.append(engines)
        return engines

    def agree(self, why: str) -> None:
        self.asked.append(why)
        if not self.agrees:
            raise NotConfirmed("no", hint="")


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    person = Person(tmp_path)
    yield person
    for engines in person.opened:
        engines.close()


def container(manifest: str, image_hash: str | None) -> Runnable:
    return Runnable("c" * 64, "4 (model)", parse_manifest(TASKS + manifest), image_hash)


def test_auto_takes_docker_where_it_has_the_registered_image(person: Person, named: str) -> None:
    chosen = person.engines("auto").choose(container(IMAGE + SANDBOX, named))
    assert (chosen.engine.name, chosen.reason) == (
        "docker",
        f"auto: it has the registered image sha256:{named[:12]}",
    )
    assert person.asked == []
    assert person.told == [f"Container 4 (model) runs in docker ({chosen.reason})"]


def test_an_image_is_known_by_its_hash_and_not_by_its_name(person: Person, named: str) -> None:
    elsewhere = IMAGE.replace(NAME, "another.example/name:9")
    assert person.engines("docker").choose(container(elsewhere, named)).engine.name == "docker"


@pytest.mark.parametrize(
    ("manifest", "has_hash", "why"),
    [
        (SANDBOX, False, "the container has no image"),
        (IMAGE + SANDBOX, False, "the container was registered without its image's hash"),
        (IMAGE + SANDBOX, True, "the registered image cannot be had"),
    ],
)
def test_auto_asks_before_it_takes_the_sandbox_and_says_why(
    person: Person, named: str, manifest: str, has_hash: bool, why: str
) -> None:
    chosen = person.engines("auto").choose(container(manifest, OTHER if has_hash else None))
    assert (chosen.engine.name, chosen.reason) == ("sandbox", f"auto, agreed to: {why}")
    assert len(person.asked) == 1


@pytest.mark.usefixtures("no_docker")
def test_where_no_docker_answers_auto_asks_and_the_address_stays_out_of_the_reason(person: Person) -> None:
    chosen = person.engines("auto").choose(container(IMAGE + SANDBOX, OTHER))
    assert chosen.reason == "auto, agreed to: no Docker engine answers"
    assert "nobody.sock" in person.asked[0]


def test_who_does_not_agree_gets_no_sandbox(person: Person, named: str) -> None:
    person.agrees = False
    with pytest.raises(NotConfirmed):
        person.engines("auto").choose(container(IMAGE + SANDBOX, None))
    assert person.told == []


def test_an_explicit_platform_is_that_one_or_none(person: Person, named: str) -> None:
    with pytest.raises(EngineUnavailable, match="cannot be pulled"):
        person.engines("docker").choose(container(IMAGE + SANDBOX, OTHER))
    with pytest.raises(EngineUnavailable, match="no sandbox section"):
        person.engines("sandbox").choose(container(IMAGE, named))
    with pytest.raises(EngineUnavailable, match="without its image's hash"):
        person.engines("auto").choose(container(IMAGE, None))
    assert person.asked == []
    chosen = person.engines("sandbox").choose(container(IMAGE + SANDBOX, named))
    assert (chosen.engine.name, chosen.reason) == ("sandbox", "--platform sandbox")


def test_what_an_engine_cannot_hold_here_is_said_once_and_a_site_may_forbid_it(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = person.engines("sandbox")
    vars(engines)["sandbox"] = SandboxEngine(person.folder, hierarchies=[])
    for manifest in (SANDBOX, SANDBOX + "name: another\n"):
        engines.choose(container(manifest, None))
    notes = [line for line in person.told if line.startswith("Note: ")]
    assert ["in sandbox here memory and processes are only looked at" in note for note in notes] == [True]

    monkeypatch.setenv("MEDPERF_REQUIRE_BOUNDS", "1")
    strict = person.engines("sandbox")
    vars(strict)["sandbox"] = SandboxEngine(person.folder, hierarchies=[])
    with pytest.raises(EngineUnavailable, match="MEDPERF_REQUIRE_BOUNDS=1 forbids that"):
        strict.choose(container(SANDBOX, None))
    monkeypatch.setenv("MEDPERF_REQUIRE_BOUNDS", "yes")
    with pytest.raises(UsageError, match="neither 0 nor 1"):
        strict.choose(container(SANDBOX, None))


@pytest.mark.parametrize(
    ("platform", "asks", "there", "said"),
    [
        ("sandbox", 1, 4, "asks for GPUs. It gets none, and has the processors: the sandbox shows a container no"),
        ("sandbox", 0, 4, None),
        ("docker", 1, 0, "asks for GPUs. It gets none, and has the processors: there is none here that it may"),
        ("docker", 1, 1, None),
        ("docker", 3, 2, "asks for 3 GPUs. It gets 2."),
        ("docker", 0, 0, None),
    ],
)
def test_a_container_that_does_not_get_the_gpus_that_it_asks_for_says_so(
    person: Person, named: str, platform: str, asks: int, there: int, said: str | None
) -> None:
    engines = person.engines(platform)
    engines.gpus = lambda: tuple(f"GPU-{number}" for number in range(there))
    engines.choose(container(IMAGE + SANDBOX + f"platform: {{accelerator_count: {asks}}}\n", named))
    notes = [line for line in person.told if "GPUs" in line]
    assert len(notes) == (said is not None)
    assert said is None or said in notes[0]


def test_a_podman_that_would_pass_over_gpus_in_silence_is_not_asked_for_any(podman_base_image: str) -> None:
    with closing(DockerEngine(Path("/nowhere"), podman())) as engine:
        assert re.fullmatch(r"Podman gives some from 5\.4 on, and this is 4\.\S+", engine.why_no_gpus() or "")
    with closing(DockerEngine(Path("/nowhere"), replace(podman(), gives_gpus_from=(4, 0)))) as engine:
        assert engine.why_no_gpus() is None


def test_auto_takes_podman_where_docker_does_not_answer(
    person: Person, podman_base_image: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nobody.sock'}")
    choice = person.engines("auto").choose(container(IMAGE, podman_base_image))
    assert (choice.engine.name, choice.reason[:35]) == ("podman", "auto: it has the registered image s")
    with pytest.raises(EngineUnavailable, match="No Docker engine answers"):
        person.engines("docker").choose(container(IMAGE, podman_base_image))


@pytest.mark.usefixtures("no_docker")
def test_podman_that_does_not_answer_is_told_how_to_start_it(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineUnavailable, match="No Podman engine answers") as raised:
        person.engines("podman").choose(container(IMAGE, OTHER))
    assert "CONTAINER_HOST is set to" in raised.value.hint
    assert "podman system service --time 0 &" in raised.value.hint


@pytest.mark.usefixtures("no_docker")
def test_docker_that_does_not_answer_is_an_error_that_says_what_to_do(person: Person) -> None:
    with pytest.raises(EngineUnavailable, match="No Docker engine answers at unix://") as raised:
        person.engines("docker").choose(container(IMAGE + SANDBOX, OTHER))
    assert "systemctl start docker" in raised.value.hint


def test_an_image_that_was_replaced_is_refused_whatever_was_agreed_to(
    person: Person, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No registry answers here: what one that gives another image makes of it is in test_docker.py.
    def replaced(*_: object, **__: object) -> str:
        raise IntegrityError("is not the registered one", hint="Do not run it. Tell the container's owner.")

    monkeypatch.setattr("medperf.engines.docker.pull_image", replaced)
    with pytest.raises(IntegrityError, match="not the registered one") as raised:
        person.engines("auto").choose(container(IMAGE + SANDBOX, OTHER))
    assert raised.value.hint.startswith("Do not run it. Tell the container's owner")
    assert person.asked == []


def test_the_reason_says_who_asked_for_the_platform_and_an_error_how_to_change_it(
    person: Person, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = container(IMAGE + SANDBOX, named)
    for source, reason, way in (
        (Source.OPTION, "--platform", ""),
        (Source.ENVIRONMENT, "MEDPERF_PLATFORM=", "MEDPERF_PLATFORM asks for docker: change it or unset it"),
        (Source.REMEMBERED, "remembered --platform", "docker is remembered from an earlier `--platform`"),
    ):
        for platform in ("sandbox", "docker"):
            chosen = replace(person.engines(platform), source=source).choose(wanted)
            assert chosen.reason.startswith(f"{reason.removesuffix('=')}{'=' if '=' in reason else ' '}{platform}")
        with pytest.raises(EngineUnavailable) as raised:
            replace(person.engines("docker"), source=source).choose(container(IMAGE + SANDBOX, OTHER))
        assert way in raised.value.hint
        assert ("asks for" in raised.value.hint or "remembered" in raised.value.hint) == bool(way)


def test_a_container_of_this_machine_is_named_by_its_folder_and_told_to_bring_its_image(person: Person) -> None:
    wanted = replace(container(IMAGE, None), name="of /home/ada/model", is_registered=False)
    engines = person.engines("docker")
    engines.__dict__["docker"] = Answering()
    with pytest.raises(EngineUnavailable, match=f"of /home/ada/model names the image {NAME}") as raised:
        engines.choose(wanted)
    assert "docker load" in raised.value.hint
    assert "owner" not in raised.value.hint


class Answering:
    """An engine at the seam that is there."""

    name = "docker"
    title = "Docker"

    def check(self) -> str:
        return "Docker"

    def close(self) -> None:
        pass


def test_no_error_of_these_is_taken_for_the_containers_own() -> None:
    assert not issubclass(EngineUnavailable, ContainerFailed)
    assert not issubclass(IntegrityError, ContainerFailed)


# What a command remembers


@pytest.fixture
def session(home_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.delenv("MEDPERF_PLATFORM", raising=False)
    return Session()


def how(platform: str | None = None) -> How:
    return How(platform, wall_seconds=None, memory_gib=None, cpus=None, root_is_writable=False)


Begin = Callable[[str | None], Engines]


@pytest.fixture
def begin(session: Session) -> Begin:
    def command(platform: str | None) -> Engines:
        with click.Context(cli):
            return make_engines(session, how(platform), lambda _line: None)

    return command


@pytest.mark.usefixtures("no_docker")
def test_a_platform_that_is_given_is_remembered_once_it_gave_an_engine(begin: Begin) -> None:
    wanted = container(IMAGE + SANDBOX, OTHER)
    assert begin(None).platform is Platform.AUTO
    with pytest.raises(EngineUnavailable):
        begin("docker").choose(wanted)
    assert begin(None).platform is Platform.AUTO
    begin("sandbox").choose(wanted)
    assert (begin(None).platform, begin(None).source) == (Platform.SANDBOX, Source.REMEMBERED)
    begin("auto").choose(wanted)
    assert begin(None).platform is Platform.AUTO


def test_the_environment_goes_before_what_is_remembered_and_is_not_remembered(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDPERF_PLATFORM", "sandbox")
    assert (begin(None).platform, begin(None).source) == (Platform.SANDBOX, Source.ENVIRONMENT)
    assert (begin("auto").platform, begin("auto").source) == (Platform.AUTO, Source.OPTION)
    begin(None).choose(container(SANDBOX, None))
    monkeypatch.delenv("MEDPERF_PLATFORM")
    assert begin(None).platform is Platform.AUTO
    # As it is called elsewhere.
    monkeypatch.setenv("MEDPERF_PLATFORM", "singularity")
    assert begin(None).platform is Platform.APPTAINER
    monkeypatch.setenv("MEDPERF_PLATFORM", "charliecloud")
    with pytest.raises(UsageError, match="charliecloud"):
        begin(None)


@pytest.mark.usefixtures("no_docker")
def test_who_asked_for_the_sandbox_has_agreed_to_it(begin: Begin) -> None:
    begin("sandbox").choose(container(SANDBOX, None))
    assert begin("auto").choose(container(SANDBOX, None)).engine.name == "sandbox"


@pytest.mark.usefixtures("no_docker")
def test_an_agreement_is_asked_for_once_and_without_a_terminal_only_yes_gives_it(
    session: Session, begin: Begin
) -> None:
    wanted = container(SANDBOX, None)
    with pytest.raises(NotConfirmed, match="no terminal"):
        begin(None).choose(wanted)
    session.yes = True
    assert begin(None).choose(wanted).engine.name == "sandbox"
    session.yes = False
    assert begin(None).choose(wanted).engine.name == "sandbox"
