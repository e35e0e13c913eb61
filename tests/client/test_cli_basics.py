"""The command itself: fast help, clear errors, exit codes, questions, the server's store."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click
import pexpect
import pytest
import yaml

from medperf.cli.lazy import LazyGroup
from medperf.cli.main import COMMANDS, cli, run
from medperf.cli.prompts import confirm, show_before_sending
from medperf.credentials import Keyring
from medperf.errors import ClientError, NotConfirmed, UsageError
from medperf.home import Home
from medperf_contracts.associations import AssociationDecision
from peers import answers
from peers.kept import local_dataset
from peers.scripted_peer import Asked, Reply, Script, ScriptedPeer

Serve = Callable[[Mapping[str, Reply | Script]], ScriptedPeer]
MEDPERF = Path(sys.executable).with_name("medperf")
EMPTY = Reply.of(answers.page())


@pytest.fixture
def peer(serve: Serve) -> ScriptedPeer:
    """A server that knows one person, who is logged in, and no things."""
    return serve(
        {
            "GET /api/v1/datasets": EMPTY,
            "POST /api/v1/auth/login": log_in,
            "POST /api/v1/auth/logout": Reply(204),
        }
    )


def log_in(asked: Asked) -> Reply:
    if asked.json == {"username": "ada", "password": "sesame"}:
        return Reply.of(answers.tokens(2))
    return Reply.problem(401, "wrong_credentials", "The user name or the password is wrong.")


# Help


def test_help_imports_nothing_that_a_command_needs() -> None:
    program = (
        "import sys; from medperf.cli.main import run; run(['--help'])\n"
        "heavy = {'httpx', 'pydantic', 'yaml', 'tabulate', 'blake3', 'sqlite3', 'asyncio', 'medperf_contracts',\n"
        "         'medperf.api', 'medperf.home', 'medperf.cli.dataset', 'medperf.cli.auth'}\n"
        "print('IMPORTED', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    assert "IMPORTED []" in done.stdout
    assert all(name in done.stdout for name in COMMANDS)


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


def test_every_command_is_there_and_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    found = dict(commands(cli))
    assert {path[0] for path in found} == set(COMMANDS)
    for path in found:
        assert run([*path, "--help"]) == 0
        assert f"Usage: medperf {' '.join(path)}" in capsys.readouterr().out


def test_every_option_of_several_words_is_shown_with_underscores() -> None:
    for path, command in commands(cli):
        for parameter in command.params:
            for name in (*parameter.opts, *parameter.secondary_opts):
                assert "-" not in name.lstrip("-"), f"{' '.join(path)} {name}"


def test_options_accept_both_ways_of_joining_words(home_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--password_stdin", "--password-stdin"):
        with pytest.raises(UsageError, match="--password_stdin needs --username"):
            cli.main(["login", option, "--server", "http://localhost:1"], standalone_mode=False)


# Errors


@click.command()
@click.argument("kind")
def failing(kind: str) -> None:
    if kind == "client":
        error = ClientError("It \x1b[31mhappened.", hint="Do this.")
        error.exit_code = 42
        raise error
    if kind == "bug":
        raise ZeroDivisionError("a bug")
    if kind == "disk":
        raise OSError(28, "No space left on device", "/some/file")
    if kind == "permission":
        raise PermissionError(13, "Permission denied", "/some/file")
    raise FileNotFoundError(2, "No such file", "/some/file")


@pytest.fixture
def failing_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "failing_command", sys.modules[__name__])
    monkeypatch.setitem(COMMANDS, "fail", ("failing_command:failing", "Fails."))


@pytest.mark.usefixtures("failing_command")
def test_an_expected_failure_is_a_message_a_hint_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fail", "client"]) == 42
    printed = capsys.readouterr()
    assert printed.err == "Error: It \\x1b[31mhappened.\nWhat to do: Do this.\n"
    assert printed.out == ""


@pytest.mark.usefixtures("failing_command")
def test_a_bug_is_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        run(["fail", "bug"])
    assert "Please report" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):
        run(["fail", "file"])


@pytest.mark.usefixtures("failing_command")
def test_a_full_disk_is_an_expected_failure(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("disk", "permission"):
        assert run(["fail", kind]) == 14
        assert "/some/file" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_and_leaves_nothing_half_written(
    peer: ScriptedPeer, home_folder: Path
) -> None:
    done = subprocess.run(
        [MEDPERF, "dataset", "ls"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)),
    )
    assert done.returncode == 14
    assert "could not be read or written" in done.stderr
    assert "What to do: Make space or mend" in done.stderr
    assert not Home.at(peer.url).store.exists()


def test_a_misspelt_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["datasets"]) == 2
    assert "No such command 'datasets'" in capsys.readouterr().err


def test_exit_codes_tell_failures_apart() -> None:
    def every(kind: type[ClientError]) -> Iterator[type[ClientError]]:
        yield kind
        for child in kind.__subclasses__():
            if child.__module__ == "medperf.errors":
                yield from every(child)

    codes = [kind.exit_code for kind in every(ClientError)]
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 128 for code in codes)


def test_an_interrupted_command_ends_with_one_line(home_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {**os.environ, "MEDPERF_SERVER": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        with subprocess.Popen(
            [MEDPERF, "dataset", "ls"], env=environment, stderr=subprocess.PIPE, text=True
        ) as waiting:
            connection, _ = silent.accept()
            with connection:
                waiting.send_signal(signal.SIGINT)
                _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("Interrupted")


def test_a_reader_that_has_had_enough_is_no_failure_of_ours(home_folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([MEDPERF, "--help"], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.stderr == ""


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_what_the_terminals_encoding_lacks_is_shown_as_its_escape(home_folder: Path, encoding: str) -> None:
    local_dataset(Home.at("http://localhost:8000"), name="Größe 日本 ✅")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([MEDPERF, "dataset", "ls", "--local"], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u65e5\u672c \u2705" in done.stdout


# Questions


def test_without_a_terminal_a_question_is_refused() -> None:
    with pytest.raises(NotConfirmed, match="no terminal"):
        confirm("Send it?", yes=False)
    confirm("Send it?", yes=True)


def test_what_is_shown_is_exactly_what_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    body = AssociationDecision(reason="two\nlines: of text")
    show_before_sending("This will be sent:", body)
    shown = capsys.readouterr().out.removeprefix("This will be sent:\n")
    assert yaml.safe_load(shown) == json.loads(body.model_dump_json())


ASK = "from medperf.cli.prompts import confirm; confirm('Send it?', yes=False); print('sent')"


@pytest.mark.parametrize(("answer", "outcome"), [("y", "sent"), ("n", "NotConfirmed"), ("", "NotConfirmed")])
def test_on_a_terminal_nothing_but_yes_is_yes(answer: str, outcome: str) -> None:
    with pexpect.spawn(sys.executable, ["-c", ASK], encoding="utf-8", timeout=20) as terminal:
        terminal.expect_exact("Send it? [y/N]:")
        terminal.sendline(answer)
        terminal.expect_exact(outcome)
        terminal.expect(pexpect.EOF)


# The login


def test_a_person_logs_in_and_the_password_is_not_shown(peer: ScriptedPeer) -> None:
    Keyring(Home.at(peer.url).credentials).forget()
    with pexpect.spawn(str(MEDPERF), ["login"], encoding="utf-8", timeout=20) as terminal:
        terminal.expect_exact("Username:")
        terminal.sendline("ada")
        terminal.expect_exact("Password:")
        terminal.sendline("sesame")
        terminal.expect_exact(f"Logged in to {peer.url} as ada.")
        assert "sesame" not in terminal.before
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 0
    kept = Keyring(Home.at(peer.url).credentials).load()
    assert kept is not None
    assert kept.access_token == "access-2"


def medperf(*arguments: str, typed: str | None = None) -> subprocess.CompletedProcess[str]:
    given = {"stdin": subprocess.DEVNULL} if typed is None else {"input": typed}
    return subprocess.run([MEDPERF, *arguments], capture_output=True, text=True, check=False, **given)  # type: ignore[call-overload,no-any-return]


def test_automation_logs_in_by_standard_input(peer: ScriptedPeer) -> None:
    done = medperf("login", "--username", "ada", "--password_stdin", typed="sesame\n")
    assert (done.returncode, done.stdout) == (0, f"Logged in to {peer.url} as ada.\n")
    done = medperf("login", "--username", "ada", "--password_stdin", typed="wrong\n")
    assert done.returncode == 6
    assert "The user name or the password is wrong." in done.stderr
    done = medperf("login", "--username", "ada da", "--password_stdin", "--yes", typed="sesame\n")
    assert done.returncode == 2
    assert "username" in done.stderr


def test_a_piped_password_is_a_line_of_text_however_it_ends(peer: ScriptedPeer) -> None:
    login = [MEDPERF, "login", "--username", "ada", "--password_stdin"]
    done = subprocess.run(login, input=b"sesame\r\n", capture_output=True, check=False)
    assert (done.returncode, peer.asked[-1].json["password"]) == (0, "sesame")
    asked = len(peer.asked)
    change = [MEDPERF, "auth", "change-password", "--password_stdin"]
    for command, typed, says in (
        (login, b"\xff\xfesesame\n", b"The password on standard input is not text in UTF-8"),
        (login, b"\n", b"There is no password on standard input"),
        (change, b"sesame\n\xff\xff\xff\xff\xff\xff\xff\xff\n", b"The new password on standard input is not text"),
        (change, b"sesame\n", b"There is no new password on standard input"),
    ):
        done = subprocess.run(command, input=typed, capture_output=True, check=False)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr
        assert b"What to do: " in done.stderr
    assert [one.path for one in peer.asked[asked:] if one.method == "POST"] == []


def test_somebody_elses_login_is_replaced_on_a_yes_only(peer: ScriptedPeer) -> None:
    keyring = Keyring(Home.at(peer.url).credentials)
    asked = len(peer.asked)
    login = ("login", "--username", "eve", "--password_stdin")
    done = medperf(*login, typed="sesame\n")
    assert (done.returncode, "ada is logged in here" in done.stderr) == (3, True)
    assert [one.path for one in peer.asked[asked:] if one.method == "POST"] == []
    kept = keyring.load()
    assert kept is not None
    assert kept.username == "ada"
    assert medperf(*login, "--yes", typed="sesame\n").returncode == 6, (
        "it was asked: this server does not know eve"
    )
    keyring.forget()
    assert medperf(*login, typed="sesame\n").returncode == 6, "where nobody is logged in there is no question"


def test_a_login_needs_a_terminal_or_says_what_else(peer: ScriptedPeer) -> None:
    done = medperf("login", "--username", "ada")
    assert done.returncode == 2
    assert "--password_stdin" in done.stderr


def test_status_shows_who_is_logged_in_and_logout_ends_it(peer: ScriptedPeer) -> None:
    done = medperf("auth", "status")
    assert yaml.safe_load(done.stdout)["username"] == "ada"
    assert json.loads(medperf("auth", "status", "--json").stdout)["server"] == peer.url
    assert medperf("logout").stdout == f"Logged out of {peer.url}.\n"
    assert "POST /api/v1/auth/logout" in [f"{asked.method} {asked.path}" for asked in peer.asked]
    assert medperf("logout").stdout == f"You were not logged in to {peer.url}.\n"
    assert medperf("auth", "status").returncode == 4


# The server and its store


def test_the_server_is_named_before_or_after_the_command(
    peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDPERF_SERVER", "http://localhost:1")
    assert run(["--server", peer.url, "dataset", "ls"]) == 0
    assert run(["dataset", "ls", "--server", peer.url]) == 0
    assert run(["--server", "http://localhost:1", "dataset", "ls", "--server", peer.url]) == 0


def other_store(peer: ScriptedPeer) -> None:
    assert run(["dataset", "ls"]) == 0
    (Home.at(peer.url).datasets / "mine").mkdir()
    before = peer.script
    changed = Reply.of({**answers.SERVER, "store_id": str(uuid.UUID(int=8))})
    peer.script = lambda asked: changed if asked.path == "/api/v1/server" else before(asked)


def test_another_store_at_the_same_address_stops_the_command(
    peer: ScriptedPeer, capsys: pytest.CaptureFixture[str]
) -> None:
    other_store(peer)
    for command in (["dataset", "ls"], ["dataset", "view", "1"], ["auth", "status"]):
        assert run(command) == 11
        assert "another store" in capsys.readouterr().err
    assert (Home.at(peer.url).datasets / "mine").is_dir()


def test_the_old_folder_is_set_aside_when_that_is_the_answer(peer: ScriptedPeer, home_folder: Path) -> None:
    other_store(peer)
    with pexpect.spawn(str(MEDPERF), ["login"], encoding="utf-8", timeout=20) as terminal:
        terminal.expect_exact("another store")
        terminal.expect_exact("Set the old folder aside and start a new one? [y/N]:")
        terminal.sendline("y")
        terminal.expect_exact("The old folder is now")
        terminal.expect_exact("Username:")
        terminal.sendeof()
        terminal.expect(pexpect.EOF)
    aside = [path for path in home_folder.iterdir() if ".set-aside-" in path.name]
    assert len(aside) == 1
    assert (aside[0] / "datasets" / "mine").is_dir()
    assert not (Home.at(peer.url).datasets / "mine").exists()


def test_the_old_folder_stays_when_the_answer_is_no(peer: ScriptedPeer) -> None:
    other_store(peer)
    with pexpect.spawn(str(MEDPERF), ["dataset", "ls"], encoding="utf-8", timeout=20) as terminal:
        terminal.expect_exact("[y/N]:")
        terminal.sendline("n")
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 3
    assert (Home.at(peer.url).datasets / "mine").is_dir()


def test_yes_sets_the_old_folder_aside_without_a_terminal(peer: ScriptedPeer) -> None:
    other_store(peer)
    done = medperf("login", "--yes", "--username", "ada", "--password_stdin", typed="sesame\n")
    assert done.returncode == 0
    assert not (Home.at(peer.url).datasets / "mine").exists()


def test_every_command_that_uses_the_server_takes_yes_for_an_answer() -> None:
    without = {("doctor",), ("logout",), ("tutorial", "data")}
    for path, command in commands(cli):
        if not isinstance(command, click.Group | LazyGroup) and path not in without:
            assert any("--yes" in parameter.opts for parameter in command.params), " ".join(path)
