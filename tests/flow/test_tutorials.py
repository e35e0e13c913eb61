"""The tutorials of the benchmark's and the model's owner, typed from their documents into a shell."""

from __future__ import annotations

import json
import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pexpect
import pytest

from peers.people import PASSWORD
from tutorials.path import EmbeddedServer

ROOT = Path(__file__).resolve().parents[2]
COMMAND_SECONDS = 240
PROMPT = "typed-and-done"
# A block of commands, or a file's content after the line that names it.
BLOCK = re.compile(r"^(?:Write `(?P<file>[\w.]+)`:\n```yaml\n|```\n)(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
QUESTIONS = (
    (r"\[y/N\]: ", "y"),
    (r"(?i)username: ", "{person}"),
    (r"(?i)(password[^\n]*|the same again): ", PASSWORD),
)


@dataclass
class Shell:
    """Somebody's shell in a folder that looks like the project's, with a server of its own."""

    folder: Path
    server: EmbeddedServer
    screen: str = ""
    learnt: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "tutorials").symlink_to(ROOT / "tutorials")
        (self.folder / "home").mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MEDPERF_")}
        environment = {
            **kept,
            "HOME": str(self.folder / "home"),
            # What pip is told on this machine still holds: containers' packages come by it.
            "XDG_CONFIG_HOME": os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config"),
            "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
            "MEDPERF_SERVER_HOME": str(self.server.home),
            "PS1": f"{PROMPT} $? \n",
            "TERM": "dumb",
        }
        self.child = pexpect.spawn(
            "/bin/bash",
            ["--norc", "--noprofile", "--noediting"],
            cwd=str(self.folder),
            env=environment,
            encoding="utf-8",
            timeout=COMMAND_SECONDS,
            dimensions=(50, 200),
            echo=False,
        )
        self.child.expect(rf"{PROMPT} 0 \r\n")

    def read(self, document: Path) -> None:
        """Do all that a document says, in its order."""
        for block in BLOCK.finditer(document.read_text()):
            text = block["text"]
            if block["file"]:
                (self.folder / block["file"]).write_text(self._told(text))
                continue
            for command in text.replace("\\\n", " ").splitlines():
                self._type(command)

    def _type(self, command: str) -> None:
        if command == "medperf-server up":
            self.server.start()  # in a terminal of its own, on a port that is free
            command = f"export MEDPERF_SERVER={self.server.url}"
        person = re.search(r"(?:# |user add )(\w+)", command)
        self.child.sendline(self._told(command))
        said = ""
        while (found := self.child.expect([rf"{PROMPT} (\d+) \r\n", *(asked for asked, _ in QUESTIONS)])) > 0:
            said += self.child.before + self.child.after
            answer = QUESTIONS[found - 1][1]
            self.child.sendline(answer.format(person=person[1] if person else ""))
        said += self.child.before
        self.screen += f"$ {command}\n{said}"
        assert self.child.match[1] == "0", self.screen
        if url := re.search(r"^URL: (\S+)\r?$", said, re.MULTILINE):
            self.learnt["URL"] = url[1]

    def _told(self, text: str) -> str:
        """Text with the words that stand for what was printed replaced by it."""
        return re.sub(r"\bURL\b", lambda word: self.learnt[word[0]], text)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, EmbeddedServer(tmp_path / "store"))
    try:
        yield shell
    finally:
        shell.child.close(force=True)
        if shell.server.is_running:
            shell.server.stop()


# Each person's machine installs the containers' packages: more than a test may take on a busy machine.
@pytest.mark.timeout(900)
def test_who_types_the_tutorials_sets_up_a_benchmark_with_a_model_that_takes_part(shell: Shell) -> None:
    shell.read(ROOT / "docs" / "tutorials" / "benchmark-owner.md")
    assert "Nothing waits for your decision." in shell.screen
    assert "Benchmark 1 (chest-xray) of carla is APPROVED." in shell.screen
    shell.read(ROOT / "docs" / "tutorials" / "model-owner.md")
    assert "Association 1 is PENDING." in shell.screen
    assert "model 4 (chest-xray-convnet) with benchmark 1 (chest-xray) is APPROVED." in shell.screen
    assert len(re.findall(r"^ *auc: 0\.\d+", shell.screen, re.MULTILINE)) >= 4, "three trials and the request"
    assert "Your model 'chest-xray-convnet' (4) was accepted" in shell.screen
    shell.screen = ""
    shell._type("medperf benchmark view 1 --json")
    shown = json.loads(shell.screen.partition("\n")[2])
    assert (shown["approval"], shown["description"][-10:]) == ("APPROVED", "Ask carla.")


def test_a_document_whose_command_fails_is_found_out(shell: Shell, tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("Do:\n```\ntrue\nfalse\n```\n")
    with pytest.raises(AssertionError, match=r"\$ false"):
        shell.read(document)
    document.write_text("Do:\n```\ntrue\n```\n")
    shell.read(document)
