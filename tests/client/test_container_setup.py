"""Registering a container: what is checked before anything is sent, what is shown, and what may change later."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pexpect
import pytest
import yaml

from client.conftest import NewPerson, Serve
from containers.small import config_of, manifest_of, write_container
from medperf.archives import extract
from medperf.cli.main import run
from medperf.manifest import Role
from peers import answers
from peers.people import Person, serve_file
from peers.scripted_peer import Asked, Reply
from tutorials.path import EmbeddedServer

Edit = Callable[[dict[str, Any]], object]


def packed(owner: Person, embedded: EmbeddedServer, folder: Path) -> str:
    """Pack a container's additional files and give them out; their URL."""
    archive = owner.machine / f"{folder.name}.tar.gz"
    owner.do("container", "pack", folder / "workspace" / "additional_files", "-o", archive)
    return serve_file(embedded, archive)


def edited(folder: Path, edit: Edit) -> Path:
    """Change a container's manifest."""
    manifest = yaml.safe_load((folder / "mlcube.yaml").read_text())
    edit(manifest)
    (folder / "mlcube.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder


@pytest.fixture
def owner(person: NewPerson) -> Person:
    return person("owner")


@pytest.fixture
def model(owner: Person) -> Path:
    return write_container(owner.machine / "model", Role.MODEL, name=owner.name)


# Packing


def test_what_is_packed_is_what_is_unpacked_and_its_hash_is_the_files_alone(owner: Person) -> None:
    folder = owner.machine / "additional"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 1000)
    (folder / "inner" / "a.txt").write_text("a")
    printed = owner.do("container", "pack", folder)
    archive = owner.machine / "additional.tar.gz"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert printed.splitlines()[1] == f"SHA-256: {digest}"
    extract(archive, owner.machine / "unpacked")
    assert (owner.machine / "unpacked" / "weights.bin").read_bytes() == (folder / "weights.bin").read_bytes()
    folder.rename(owner.machine / "elsewhere")
    assert f"SHA-256: {digest}\n" in owner.do("container", "pack", "elsewhere", "-o", "again.tar.gz")


def test_an_archive_that_is_there_is_replaced_on_the_persons_word_only(owner: Person, model: Path) -> None:
    (owner.machine / "a.tar.gz").write_text("mine")
    command = ("container", "pack", model / "workspace" / "additional_files", "-o", "a.tar.gz")
    owner.try_to(*command)
    assert (owner.code, (owner.machine / "a.tar.gz").read_text()) == (3, "mine")
    owner.do(*command, "--yes")
    assert tarfile.is_tarfile(owner.machine / "a.tar.gz")


def test_what_cannot_be_packed_is_said_and_nothing_is_written(owner: Person, model: Path) -> None:
    folder = owner.machine / "folder"
    (folder / "empty").mkdir(parents=True)
    owner.try_to("container", "pack", folder)
    assert (owner.code, "holds no files" in owner.said) == (2, True)
    (folder / "link").symlink_to("/etc/passwd")
    owner.try_to("container", "pack", folder)
    assert (owner.code, "neither a file nor a folder" in owner.said) == (2, True)
    (folder / "link").unlink()
    (folder / "file").write_text("x")
    owner.try_to("container", "pack", folder, "-o", folder / "a.tar.gz")
    assert (owner.code, "is inside" in owner.said) == (2, True)
    owner.try_to("container", "pack", folder, "-o", owner.machine / "nowhere" / "a.tar.gz")
    assert (owner.code, "There is no folder" in owner.said) == (2, True)
    owner.try_to("container", "pack", model)
    assert (owner.code, "is a whole container" in owner.said) == (2, True)
    assert list(owner.machine.rglob("*.tar.gz*")) == []


# Submitting


def test_a_container_is_shown_whole_asked_about_sent_and_found_again(
    owner: Person, embedded: EmbeddedServer, model: Path
) -> None:
    url = packed(owner, embedded, model)
    with owner.at_a_terminal(f"medperf container submit model --additional_files {url}") as terminal:
        terminal.expect_exact("It can serve as model.")
        terminal.expect_exact("This is all that will be sent to")
        terminal.expect_exact("Register this container? [y/N]:")
        shown = yaml.safe_load(terminal.before.partition("\r\n\r\n")[2])
        terminal.sendline("y")
        terminal.expect(r"Server UID: (\d+)")
        uid = int(terminal.match[1])
        terminal.expect_exact(f"medperf container set-operational {uid}")
        terminal.expect(pexpect.EOF)
    archive = (owner.machine / "model.tar.gz").read_bytes()
    assert shown == {
        "name": owner.name,
        "description": "",
        "manifest": (model / "mlcube.yaml").read_text(),
        "parameters": "fault: \n",
        "additional_files_url": url,
        "additional_files_hash": hashlib.sha256(archive).hexdigest(),
    }
    registered = json.loads(owner.do("container", "view", uid, "--json"))
    assert shown.items() <= registered.items()
    assert registered["state"] == "DEVELOPMENT"

    # The same again is no failure: the one that stands is named.
    again = owner.do("container", "submit", "model", "--additional_files", url, "--yes")
    assert owner.uid_of(again) == uid
    assert f"You registered the same before, as '{owner.name}' (DEVELOPMENT): that one stands." in again


def test_a_folder_with_a_container_config_is_taken_as_it_is(owner: Person, model: Path) -> None:
    config = model / "container_config.yaml"
    config.write_text(yaml.safe_dump(config_of(Role.MODEL, image="example/model:1") | {"name": owner.name}))
    (model / "workspace" / "additional_files" / "main.py").unlink()
    (model / "workspace" / "additional_files").rmdir()
    refused(owner, code=2, says="holds both mlcube.yaml and container_config.yaml")
    (model / "mlcube.yaml").unlink()
    owner.try_to("container", "pack", model)
    assert "is a whole container" in owner.said
    refused(owner, code=2, says="nothing says which image it must be")
    as_image = config.read_text()
    for kind in ("DockerArchive", "SingularityFile"):
        config.write_text(as_image.replace("DockerImage", kind))
        refused(
            owner, "--image_hash", "ab" * 32, code=2, says="its image is a file, and nothing says where that is"
        )
    config.write_text(as_image)
    uid = owner.uid_of(owner.do("container", "submit", "model", "--image_hash", "ab" * 32, "--yes"))
    registered = json.loads(owner.do("container", "view", uid, "--json"))
    assert (registered["manifest"], registered["image_hash"]) == (config.read_text(), "ab" * 32)


def test_the_same_parts_under_another_name_are_refused_and_each_difference_is_named(
    owner: Person, embedded: EmbeddedServer, model: Path
) -> None:
    url = packed(owner, embedded, model)
    submit = ("container", "submit", "model", "--additional_files", url, "--yes")
    uid = owner.uid_of(owner.do(*submit, "--description", "One."))
    printed = owner.try_to(*submit, "--name", "other", "--description", "Größer.")
    assert (owner.code, "Server UID" in printed) == (6, False)
    assert f"container {uid} ({owner.name}), DEVELOPMENT. It stands as it is" in owner.said
    assert f'name: registered is "{owner.name}", you gave "other"' in owner.said
    assert 'description: registered is "One.", you gave "Größer."' in owner.said
    assert "manifest: " not in owner.said


def test_a_path_of_this_machine_is_no_address_and_is_not_asked_for(serve: Serve, tmp_path: Path) -> None:
    write_container(tmp_path / "model", Role.MODEL)
    archive = tmp_path / "files.tar.gz"
    archive.write_bytes(b"of this machine")
    file = tmp_path / "b.yaml"
    peer = serve({})
    for path, says in (
        (archive, "is a file on this machine"),
        (tmp_path / "model", "is a folder on this machine"),
        (tmp_path / "misspelt.tar.gz", "There is no file"),
        ("files.tar.gz", "There is no file"),
        ("x" * 5000, "There is no file"),
    ):
        file.write_text(f"{{name: x, preparation: 1, reference_model: 2, metrics: 3, demo_data_url: '{path}'}}")
        for command in (
            ("container", "submit", tmp_path / "model", "--additional_files", path),
            ("container", "update", "3", "--additional_files", path, "-y"),
            ("container", "update", "3", "--image_url", path, "-y"),
            ("benchmark", "update", "3", "--demo_data", path, "-y"),
            ("benchmark", "submit", file),
        ):
            assert_refused(command, says)
        if path != archive:
            assert_refused(
                ("test", "run", "-b", "1", "--demo_data", path), "this machine" if "is a" in says else says
            )
    assert peer.asked == []


def assert_refused(command: tuple[object, ...], says: str) -> None:
    error = io.StringIO()
    with redirect_stderr(error):
        code = run([str(word) for word in command])
    assert (code, says in error.getvalue()) == (2, True), (command, error.getvalue())
    assert "What to do: " in error.getvalue()


def test_an_address_of_this_machine_itself_is_warned_of(serve: Serve, tmp_path: Path) -> None:
    write_container(tmp_path / "model", Role.MODEL)
    serve({})
    error = io.StringIO()
    with redirect_stderr(error):
        run(["container", "submit", str(tmp_path / "model"), "--additional_files", "http://127.0.0.1:1/a.tar.gz"])
    assert "other sites cannot fetch it" in error.getvalue()


def test_an_archive_of_other_files_than_those_here_is_not_registered(
    owner: Person, embedded: EmbeddedServer, model: Path
) -> None:
    url = packed(owner, embedded, model)
    files = model / "workspace" / "additional_files"
    program = (files / "main.py").read_text()
    (files / "main.py").write_text("print('edited since')\n")
    (files / "weights.bin").write_text("new")
    says = "additional_files/main.py; missing: additional_files/weights.bin"
    refused(owner, "--additional_files", url, code=8, says=says)
    (files / "link").symlink_to("main.py")
    refused(owner, "--additional_files", url, code=8, says="additional_files/link is not a regular file")
    (files / "link").unlink()
    # Neither what Python leaves beside it nor who packed it, and how, makes it another.
    (files / "weights.bin").unlink()
    (files / "main.py").write_text(program)
    (files / "__pycache__").mkdir()
    (files / "__pycache__" / "main.pyc").write_bytes(b"left")
    with tarfile.open(owner.machine / "own.tar.gz", "w:gz") as archive:
        for file in sorted(files.glob("*.*")):
            archive.add(file, file.name)
    own = serve_file(embedded, owner.machine / "own.tar.gz")
    owner.do("container", "submit", "model", "--additional_files", own, "--yes")


def test_a_no_sends_nothing(owner: Person, embedded: EmbeddedServer, model: Path) -> None:
    url = packed(owner, embedded, model)
    with owner.at_a_terminal(f"medperf container submit model --additional_files {url}") as terminal:
        terminal.expect_exact("Register this container? [y/N]:")
        terminal.sendline("n")
        terminal.expect(pexpect.EOF)
    owner.try_to("container", "submit", "model", "--additional_files", url)
    assert (owner.code, "There is no terminal" in owner.said) == (3, True)
    assert json.loads(owner.do("container", "ls", "--mine", "--json")) == []


def test_a_manifests_file_with_other_parameters_and_a_name_of_its_own(
    owner: Person, embedded: EmbeddedServer, model: Path
) -> None:
    url = packed(owner, embedded, model)
    (owner.machine / "other.yaml").write_bytes(b"threshold: 0.5\r\n")
    printed = owner.do(
        "container", "submit", model / "mlcube.yaml", "--parameters", "other.yaml", "--name", "  mine ",
        "--description", "One.\nTwo.", "--additional-files", url, "--yes",
    )  # fmt: skip
    registered = json.loads(owner.do("container", "view", owner.uid_of(printed), "--json"))
    assert (registered["name"], registered["description"]) == ("mine", "One.\nTwo.")
    assert registered["parameters"] == "threshold: 0.5\n"


def refused(owner: Person, *more: object, code: int, says: str) -> None:
    """Submitting the model is refused in these words, with something to do, and nothing is sent."""
    owner.try_to("container", "submit", "model", "--yes", *more)
    assert (owner.code, says in owner.said) == (code, True), owner.said
    assert "What to do: " in owner.said
    assert json.loads(owner.do("container", "ls", "--mine", "--json")) == []


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda it: it.pop("tasks"), "tasks is missing"),
        (
            lambda it: it["tasks"].update(infer={}),
            "can serve in no role: preparation lacks tasks.prepare; model lacks "
            "tasks.infer.parameters.inputs.data_path; metrics lacks tasks.evaluate",
        ),
        (
            lambda it: it["tasks"]["infer"]["parameters"]["inputs"].update(weights="additional_files/w.json"),
            "takes additional_files/w.json (tasks.infer.parameters.inputs.weights), which is not in its",
        ),
        (
            lambda it: it["tasks"]["infer"]["parameters"]["inputs"].update(code="additional_files/main.py/"),
            "which is not in its additional files as a directory.",
        ),
        (
            lambda it: it["tasks"]["infer"]["parameters"]["inputs"].update(weights="weights.json"),
            "takes weights.json (tasks.infer.parameters.inputs.weights), which will be on nobody's machine",
        ),
    ],
)
def test_a_manifest_that_cannot_work_is_refused_before_anything_is_sent(
    owner: Person, embedded: EmbeddedServer, model: Path, edit: Edit, says: str
) -> None:
    edited(model, edit)
    refused(owner, "--additional_files", packed(owner, embedded, model), code=10, says=says)


def test_what_is_not_there_or_cannot_be_read_is_said(owner: Person, embedded: EmbeddedServer, model: Path) -> None:
    parameters = model / "workspace" / "parameters.yaml"
    parameters.write_text("a: [1")
    refused(owner, code=10, says="is not valid YAML, line 2")
    parameters.unlink()
    refused(owner, "--additional_files", packed(owner, embedded, model), code=10, says="but it has no parameters")
    parameters.write_bytes(b"a: \xff")
    refused(owner, code=10, says="is not text in UTF-8")
    parameters.write_text(f"a: {'x' * 140_000}")
    refused(owner, code=2, says="parameters: String should have at most 131072 characters")
    parameters.write_text("a: 1")
    refused(owner, "--name", "x" * 200, code=2, says="name: String should have at most 128 characters")
    refused(owner, "--name", "", code=2, says="name: String should have at least 1 character")
    (model / "mlcube.yaml").unlink()
    refused(owner, code=2, says="mlcube.yaml cannot be read: No such file or directory")


def test_files_of_its_own_need_an_archive(owner: Person, model: Path) -> None:
    refused(owner, code=2, says="nothing says where their archive is")
    shutil.rmtree(model / "workspace" / "additional_files")
    refused(owner, code=10, says="sandbox runs main.py, which is not in its additional files")
    edited(model, lambda it: it["sandbox"].update(command=["python", "-c", "pass"]))
    edited(model, lambda it: it["tasks"]["infer"]["parameters"]["inputs"].update(w="additional_files/main.py"))
    refused(owner, code=10, says="but it has no additional files")


def test_an_archive_with_one_folder_too_many_is_refused(
    owner: Person, embedded: EmbeddedServer, model: Path
) -> None:
    archive = owner.machine / "a.tar.gz"
    owner.do("container", "pack", model / "workspace", "-o", archive)
    url = serve_file(embedded, archive)
    refused(owner, "--additional_files", url, code=10, says="sandbox runs main.py, which is not in its additional")


def test_an_archive_that_is_not_there_or_is_none_is_refused(
    owner: Person, embedded: EmbeddedServer, model: Path
) -> None:
    refused(
        owner, "--additional_files", "/assets/none.tar.gz", code=6, says="/assets/none.tar.gz cannot be fetched"
    )
    assert (
        "medperf-server asset add FILE"
        in owner.try_to("container", "submit", "model", "--additional_files", "/assets/none.tar.gz") + owner.said
    )
    refused(owner, "--additional_files", "here.tar.gz", code=2, says="There is no file here.tar.gz")
    refused(owner, "--additional_files", "http://192.0.2.1/a.tar.gz", code=2, says="is neither https nor on this")
    (owner.machine / "text.tar.gz").write_text("no archive" * 100)
    url = serve_file(embedded, owner.machine / "text.tar.gz")
    refused(owner, "--additional_files", url, code=10, says="cannot be unpacked")
    with tarfile.open(owner.machine / "climbs.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../evil"))
    url = serve_file(embedded, owner.machine / "climbs.tar.gz")
    refused(owner, "--additional_files", url, code=10, says="climbs out with '..'")
    assert [path for path in (owner.machine / "home").rglob("scratch/*") if path.is_dir()] == []


def test_nobody_downloads_before_they_are_logged_in(serve: Serve, tmp_path: Path) -> None:
    write_container(tmp_path / "model", Role.MODEL)
    peer = serve({"GET /api/v1/users/me": Reply.problem(401, "token_invalid"),
                  "POST /api/v1/auth/refresh": Reply.problem(401, "refresh_invalid")})  # fmt: skip
    assert run(["container", "submit", str(tmp_path / "model"), "--additional_files", "/assets/a.tar.gz"]) == 4
    assert "/assets/a.tar.gz" not in peer.paths()


# Images

DIGEST = "0123456789abcdef" * 4


def only_image(manifest: dict[str, Any]) -> None:
    del manifest["sandbox"]
    manifest["docker"] = {"image": "hospital/model:1"}


def test_an_image_alone_needs_its_hash_and_is_told_how_to_get_it(owner: Person, model: Path) -> None:
    edited(model, only_image)
    shutil.rmtree(model / "workspace" / "additional_files")
    refused(owner, code=2, says="docker image inspect --format '{{.Id}}' hospital/model:1")
    refused(owner, "--image_hash", "sha256:12", code=2, says="is not the SHA-256 of an image")
    for written in (DIGEST, f"sha256:{DIGEST.upper()}"):
        printed = owner.do("container", "submit", "model", "--image_hash", written, "--yes")
        assert json.loads(owner.do("container", "view", owner.uid_of(printed), "--json"))["image_hash"] == DIGEST
    assert "in the sandbox only" not in owner.said


def test_an_image_without_its_hash_beside_a_sandbox_is_said_to_run_in_the_sandbox_only(
    owner: Person, embedded: EmbeddedServer, model: Path
) -> None:
    refused(owner, "--image_hash", DIGEST, code=2, says="the manifest names no image")
    edited(model, lambda it: it.update(docker={"image": "hospital/model:1"}))
    owner.do("container", "submit", "model", "--additional_files", packed(owner, embedded, model), "--yes")
    assert "it will run in the sandbox only" in owner.said


# Afterwards


def submitted(owner: Person, embedded: EmbeddedServer, model: Path) -> int:
    url = packed(owner, embedded, model)
    return owner.uid_of(owner.do("container", "submit", model, "--additional_files", url, "--yes"))


def test_bringing_into_operation_asks_and_is_done_once(
    owner: Person, person: NewPerson, embedded: EmbeddedServer, model: Path
) -> None:
    uid = submitted(owner, embedded, model)
    stranger = person("stranger")
    stranger.try_to("container", "set-operational", uid, "--yes")
    assert (stranger.code, "There is no container" in stranger.said) == (6, True)
    owner.try_to("container", "set-operational", uid)
    assert owner.code == 3
    with owner.at_a_terminal(f"medperf container set-operational {uid}") as terminal:
        terminal.expect_exact("It cannot be undone. [y/N]:")
        terminal.sendline("y")
        terminal.expect_exact("is in OPERATION.")
        terminal.expect(pexpect.EOF)
    assert "is in operation already" in owner.do("container", "set-operational", uid)
    assert f'"id": {uid}' in stranger.do("container", "ls", "--json")


def test_what_is_somebody_elses_is_refused_before_anything_is_fetched_or_asked(serve: Serve) -> None:
    peer = serve({"GET /api/v1/containers/3": Reply.of(answers.container(3, state="DEVELOPMENT"))})
    for command, says in (
        (("container", "update", "3", "--additional_files", "/assets/a.tar.gz"), "its owner or an administrator"),
        (("container", "set-operational", "3"), "its owner"),
    ):
        error = io.StringIO()
        with redirect_stderr(error):
            assert run(command) == 6, "no question was asked: that would be 3"
        assert f"Only {says} may do this with container 3." in error.getvalue()
        assert "Its owner is committee." in error.getvalue()
    assert {one.method for one in peer.asked} == {"GET"}
    assert "/assets/a.tar.gz" not in peer.paths()


@pytest.mark.parametrize("role", Role)
def test_what_comes_next_is_what_the_roles_of_a_container_allow(
    serve: Serve, capsys: pytest.CaptureFixture[str], role: Role
) -> None:
    thing = answers.container(3, owner_id=5, state="DEVELOPMENT", manifest=json.dumps(manifest_of(role)))
    serve(
        {
            "GET /api/v1/containers/3": Reply.of(thing),
            "POST /api/v1/containers/3/set-operational": Reply.of({**thing, "state": "OPERATION"}),
        }
    )
    assert run(["container", "set-operational", "3", "--yes"]) == 0
    printed = capsys.readouterr().out
    assert "medperf benchmark submit FILE.yaml" in printed
    assert ("medperf model associate" in printed) == (role is Role.MODEL)


def test_an_administrator_may_change_what_is_somebody_elses(serve: Serve) -> None:
    peer = serve(
        {
            "GET /api/v1/users/me": Reply.of({**answers.user(), "is_admin": True}),
            "GET /api/v1/containers/3": Reply.of(answers.container(3)),
            "PATCH /api/v1/containers/3": Reply.of(answers.container(3, version=2, is_valid=False)),
        }
    )
    assert run(["container", "update", "3", "--invalid", "--yes"]) == 0
    assert peer.asked[-1].method == "PATCH"


def test_what_may_change_changes_and_what_it_does_stays(
    owner: Person, embedded: EmbeddedServer, model: Path
) -> None:
    uid = submitted(owner, embedded, model)
    copy = serve_file(embedded, owner.machine / "model.tar.gz")
    (owner.machine / "same.tgz").write_bytes((owner.machine / "model.tar.gz").read_bytes())
    elsewhere = serve_file(embedded, owner.machine / "same.tgz")
    assert elsewhere != copy
    printed = owner.do(
        "container", "update", uid, "--description", "New.", "--additional_files", elsewhere, "--invalid", "--yes"
    )
    assert "is at version 1." in printed
    assert "it is at version 2 now" in printed
    shown = json.loads(owner.do("container", "view", uid, "--json"))
    assert (shown["description"], shown["additional_files_url"], shown["is_valid"]) == ("New.", elsewhere, False)
    owner.do("container", "update", uid, "--valid", "--yes")
    assert json.loads(owner.do("container", "view", uid, "--json"))["is_valid"] is True
    assert "nothing was changed" in owner.do("container", "update", uid, "--valid", "--yes")
    owner.try_to("container", "update", uid)
    assert (owner.code, "Say what is to change" in owner.said) == (2, True)
    owner.try_to("container", "update", uid, "--valid")
    assert owner.code == 3
    owner.try_to("container", "update", uid, "--image_url", "https://example.org/a.tar", "--yes")
    assert (owner.code, "was registered without image_hash" in owner.said) == (6, True)


def test_a_new_address_must_give_the_same_file(owner: Person, embedded: EmbeddedServer, model: Path) -> None:
    uid = submitted(owner, embedded, model)
    (owner.machine / "other.tar.gz").write_bytes(b"other")
    url = serve_file(embedded, owner.machine / "other.tar.gz")
    owner.try_to("container", "update", uid, "--additional_files", url, "--yes")
    assert (owner.code, hashlib.sha256(b"other").hexdigest() in owner.said) == (8, True)
    assert json.loads(owner.do("container", "view", uid, "--json"))["version"] == 1


def test_a_change_that_lost_a_race_is_refused_and_says_what_to_do(
    owner: Person, embedded: EmbeddedServer, model: Path
) -> None:
    uid = submitted(owner, embedded, model)
    with owner.at_a_terminal(f"medperf container update {uid} --description mine; echo ended $?") as terminal:
        terminal.expect_exact("Change this container? [y/N]:")
        owner.do("container", "update", uid, "--description", "another's", "--yes")
        terminal.sendline("y")
        terminal.expect_exact("Somebody changed it since you were shown it")
        terminal.expect_exact(f"medperf container view {uid}")
        terminal.expect_exact("ended 6")
        terminal.expect(pexpect.EOF)
    assert json.loads(owner.do("container", "view", uid, "--json"))["description"] == "another's"


def test_a_change_carries_the_version_that_was_shown(serve: Serve) -> None:
    def change(asked: Asked) -> Reply:
        assert asked.headers["if-match"] == '"7"'
        return Reply.of(answers.container(3, version=8, owner_id=5))

    serve(
        {
            "GET /api/v1/containers/3": Reply.of(answers.container(3, version=7, owner_id=5)),
            "PATCH /api/v1/containers/3": change,
        }
    )
    assert run(["container", "update", "3", "--invalid", "--yes"]) == 0
