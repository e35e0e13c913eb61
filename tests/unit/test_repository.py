"""Rules about the repository itself, each with its check."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import medperf.errors
from medperf.causes import NEXT_STEP, Cause

ROOT = Path(__file__).resolve().parents[2]
LINES_MOST = 400
# Where packages come from is a machine's setting; a file that names it breaks every site behind a mirror.
INDEX_HOSTS = re.compile(
    "pypi" + r"\.org|pythonhosted" + r"\.org|registry\.npmjs" + r"\.org|deb\.debian" + r"\.org"
)


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert paths
    return [path for path in paths if path.is_file()]


def test_no_source_file_outgrows_its_name() -> None:
    sources = [path for path in tracked("*.py") if not {"tests", "migrations"} & set(path.relative_to(ROOT).parts)]
    long = {str(path): lines for path in sources if (lines := len(path.read_text().splitlines())) > LINES_MOST}
    assert long == {}


def test_no_file_has_a_name_that_says_nothing() -> None:
    names = {"utils", "helpers", "common", "misc"}
    assert [path for path in tracked("*.py") if names & {path.stem, *path.relative_to(ROOT).parts}] == []


def test_the_rules_of_a_domain_never_read_the_clock() -> None:
    reads = re.compile(r"\.(now|utcnow|today)\(")
    rules = tracked("services/*/domain.py", "services/*/domain/*.py")
    assert [path for path in rules if reads.search(path.read_text())] == []


def test_no_file_names_a_package_index() -> None:
    named = [path for path in tracked() if INDEX_HOSTS.search(path.read_text(errors="replace"))]
    assert named == []


def test_every_exit_code_is_documented_and_unique() -> None:
    documented = dict(
        re.findall(r"^\| (\d+) \| `(\w+)`", (ROOT / "docs" / "exit-codes.md").read_text(), re.MULTILINE)
    )
    errors = {
        str(error.exit_code): error.__name__
        for error in vars(medperf.errors).values()
        if isinstance(error, type) and issubclass(error, medperf.errors.ClientError) and "exit_code" in vars(error)
    }
    del errors["1"]  # the base: never raised itself
    assert documented == errors


def test_every_cause_is_documented_with_what_to_do() -> None:
    documented = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", (ROOT / "docs" / "runs.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(Cause)
    assert set(NEXT_STEP) == set(Cause)


def test_every_test_that_a_document_names_is_there() -> None:
    named = [
        (document.name, file, test)
        for document in tracked("docs/*.md", "*.md")
        for file, test in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", document.read_text())
    ]
    assert {document for document, _, _ in named} >= {"bad-input.md", "SECURITY.md"}
    for document, file, test in named:
        assert (ROOT / file).is_file(), f"{document} names {file}"
        assert not test or f"\ndef {test}(" in (ROOT / file).read_text(), f"{document} names {file}::{test}"


@pytest.mark.parametrize("name", ["server", "client"])
def test_what_a_distribution_needs_is_what_is_locked(name: str) -> None:
    wanted = (ROOT / "requirements" / f"{name}.in").read_text().split()
    project = {"server": ROOT, "client": ROOT / "client"}[name] / "pyproject.toml"
    for requirement in wanted:
        assert f'"{requirement}"' in project.read_text(), requirement
    locked = (ROOT / "requirements" / f"{name}.txt").read_text()
    both = (ROOT / "requirements" / "dev.txt").read_text()
    for line in re.findall(r"^\S+==\S+", locked, re.MULTILINE):
        assert line in both, f"{line} is not what the development environment has"


def test_commands_that_tests_interrupt_can_be_interrupted_where_the_suite_runs_in_the_background() -> None:
    code = "import conftest, subprocess, sys; sys.exit(subprocess.call(['sh', '-c', 'kill -INT $$; exit 3']))"
    ignoring = ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, code]
    assert subprocess.run(ignoring, cwd=ROOT / "tests", check=False).returncode != 3
