"""What a person is told to type exists: each command and option in the messages of client and server."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from medperf.cli.main import cli
from medperf.engines.base import Cause, Limits, Outcome, TaskSpec, failure
from services.main import cli as server_cli

ROOT = Path(__file__).parents[2]
SOURCES = ("client/medperf", "services", "contracts/medperf_contracts")
PROGRAMS = {"medperf": cli, "medperf-server": server_cli}
# Stands for what a message puts in: an ID, a path, or a whole pair of options.
FILLED_IN = "FILLED_IN"
# In backticks, or in the open: to the end of the words that are typed.
QUOTED = re.compile(r"`(medperf(?:-server)? [^`]+)`")
OPEN = re.compile(r"(?<![\w./`-])(medperf(?:-server)? [a-z][\w-]*[^`;:,)\n]*?)(?=\. |\.?$|[`;:,)\n]| \()")
# Options of other programs, which messages name too.
FOREIGN = {"--format", "--ro_bind", "--shm_size", "--unshare_all", "--cap_drop", "--user", "--time", "--userns"}


def texts(file: Path) -> Iterator[str]:
    """Every string in a source file, what is filled in named, but for those inside another."""
    inside: set[ast.AST] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            inside.update(node.values)
            yield "".join(str(it.value) if isinstance(it, ast.Constant) else FILLED_IN for it in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.value


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    """Every string of these folders, and the file that it is in."""
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            for text in texts(file):
                yield file.relative_to(ROOT).as_posix(), text


def found() -> Iterator[tuple[str, str]]:
    """Every command that a person is told to type, and the file that tells it."""
    for file, text in sources(*SOURCES):
        for match in QUOTED.finditer(text):
            yield file, match[1]
        for match in OPEN.finditer(QUOTED.sub("", text)):
            program, noun = match[1].split()[:2]
            # In the open `medperf` is also just its name.
            if noun in PROGRAMS[program].list_commands(click.Context(PROGRAMS[program])):
                yield file, match[1]


def understand(words: list[str]) -> None:
    """Find the command and take its options as it would; click.UsageError where it would not."""
    program, *rest = words
    understand_by(PROGRAMS[program], click.Context(PROGRAMS[program], info_name=program), rest)


def understand_by(command: click.Command, context: click.Context, rest: list[str]) -> None:
    if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        names = command.list_commands(context) if rest[0] == FILLED_IN else rest[0].split("|")
        understood = [understood_by(command, context, name, rest[1:]) for name in names]
        if not any(understood) or (rest[0] != FILLED_IN and not all(understood)):
            raise click.UsageError(f"{rest[0]} is no command that takes {rest[1:]}")
        return
    left = command.make_parser(context).parse_args(list(rest))[1]
    takes = [it for it in command.params if isinstance(it, click.Argument)]
    if isinstance(command, click.Group):
        takes = []
    if [it for it in left if it != FILLED_IN] or len(left) > len(takes) + 1:
        raise click.UsageError(f"{left} is too much")


def understood_by(group: click.Group, context: click.Context, name: str, rest: list[str]) -> bool:
    command = group.get_command(context, name)
    if command is None:
        return False
    own = click.Context(command, parent=context, info_name=name, **command.context_settings)
    try:
        understand_by(command, own, rest)
    except click.UsageError:
        return False
    return True


def test_every_command_that_a_person_is_told_to_type_is_understood() -> None:
    told = list(found())
    assert len(told) > 80, "they were looked for where they are"
    wrong = []
    for file, command in told:
        try:
            understand(shlex.split(command.replace("…", "")))
        except (click.UsageError, ValueError) as error:
            wrong.append(f"{file}: {command}: {error}")
    assert wrong == []


@pytest.mark.parametrize(
    "command",
    [
        "medperf datasets ls",
        "medperf dataset submit --uid 1",
        "medperf login now",
        "medperf-server up --everything",
        "medperf association approve|refuse 1",
    ],
)
def test_a_command_that_does_not_exist_is_not_understood(command: str) -> None:
    with pytest.raises(click.UsageError):
        understand(shlex.split(command))


def options(command: click.Command) -> Iterator[str]:
    """The options of a command, and of those that it is a group of."""
    context = click.Context(command)
    for parameter in command.get_params(context):
        yield from (*parameter.opts, *parameter.secondary_opts)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from options(inner)


def test_every_option_that_a_person_is_told_to_give_exists() -> None:
    known = {*options(cli), *options(server_cli)} | FOREIGN
    told = [
        (file, match[0].replace("-", "_").replace("__", "--", 1))
        for file, text in sources("client/medperf")
        for match in re.finditer(r"(?<![\w-])--[a-z][a-z_-]*[a-z]", text)
        # Sentences; what is one word is an argument of some program.
        if " " in text
    ]
    assert len(told) > 60
    assert [(file, option) for file, option in told if option not in known] == []


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause.value.endswith(("limit", "memory"))])
def test_a_container_that_met_a_limit_names_the_option_that_raises_it_or_says_that_it_is_fixed(
    cause: Cause, tmp_path: Path
) -> None:
    spec = TaskSpec("run", "infer", (), (), None, None, tmp_path / "log", Limits())
    hint = failure(spec, Outcome(cause, None, 1.0)).hint
    takes = set(options(cli.get_command(click.Context(cli), "benchmark") or cli))
    named = re.findall(r"--\w+", hint)
    assert set(named) <= takes
    assert bool(named) != ("limit is fixed" in hint)
