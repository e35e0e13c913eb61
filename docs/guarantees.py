"""The table engine × guarantee of docs/security.md, made of the markers of the tests that try to break each."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ENGINES = ("sandbox", "docker", "podman", "apptainer")
BEGIN, END = (
    "<!-- Made by docs/generate.py of the tests' markers: mark a test, then run it. -->",
    "<!-- To here. -->",
)
# What each container is held to, in the order of the table.
GUARANTEES = {
    "network": "no network, not even the host's loopback",
    "inputs": "inputs cannot be written or mounted anew",
    "host": "no other file of the host, no home folder, no other run, no engine's socket",
    "environment": "nothing of the caller's environment",
    "memory folders": "writable are the outputs, `/tmp` and `/dev/shm`, which are bounded memory",
    "own files": "its own files are read-only, unless a person agreed to a layer that is thrown away",
    "capabilities": "no capability, no new privileges, no new namespace",
    "root": "never root on the host",
    "processes outside": "processes outside are neither seen, ended nor traced (ptrace of the client)",
    "memory": "memory, over all processes together (a memory hog)",
    "processes": "processes (a fork bomb)",
    "processors": "processor time",
    "outputs": "what it writes to its outputs (filling the disk)",
    "kinds": "outputs are files and folders: no link out of them, no pipe, socket or second name",
    "printing": "endless printing",
    "terminal": "printing that would paint a terminal",
    "time": "the time limit, also where signals are ignored (SIGTERM)",
    "end": "nothing of it goes on after its end",
    "told to end": "nor after its client was told to end (SIGTERM), or its terminal closed",
    "killed": "nor, but for its own work, after its client was killed (see below)",
}
# Which engines the clients of a test's file run: by the file, and in it by the name of the fixture.
_CLIENTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "test_confinement.py": dict.fromkeys(("client", "one_client", "bounded_client"), ENGINES),
    "test_sandbox.py": dict.fromkeys(("client", "one_client", "root_client"), ("sandbox",)),
    "test_apptainer.py": dict.fromkeys(("client", "one_client"), ("apptainer",)),
    "test_docker.py": {"client": ("docker",), "one_client": ("docker",), "image_client": ("docker", "podman")},
    "test_surviving_runs.py": {"machine_with": ("docker",)},
    "test_signals.py": {"trial": ("docker",)},
}
# Where there is no test of an engine's own: why.
_REASONS = {
    ("sandbox", "told to end"): "as below",
    ("apptainer", "told to end"): "as below",
    ("podman", "own files"): "as Docker: the same options, not tried",
    ("podman", "told to end"): "as Docker: the same code, not tried",
    ("podman", "killed"): "as Docker: the same code, not tried",
}


class Trial(NamedTuple):
    """A test that tries to break a guarantee, and the engines in which it does."""

    guarantee: str
    name: str
    engines: tuple[str, ...]


def trials() -> Iterator[Trial]:
    """Every test with the marker `guarantee`; ValueError for one that names no guarantee, or runs in no engine."""
    for file, clients in _CLIENTS.items():
        path = ROOT / "tests" / "client" / file
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            for guarantee in _marked(node):
                name = f"tests/client/{file}::{node.name}"
                engines = [clients[given.arg] for given in node.args.args if given.arg in clients]
                if guarantee not in GUARANTEES or not engines:
                    raise ValueError(f"{name} is marked with {guarantee!r} and runs in {engines}")
                yield Trial(guarantee, name, engines[0])


def _marked(test: ast.FunctionDef) -> Iterator[str]:
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.guarantee":
            yield str(ast.literal_eval(decorator.args[0]))


def table() -> str:
    """The table in Markdown; ValueError where an engine has neither a test of a guarantee nor a reason."""
    found = list(trials())
    rows = [f"| guarantee | {' | '.join(ENGINES)} | tried by |", f"|---|{'---|' * len(ENGINES)}---|"]
    for key, sentence in GUARANTEES.items():
        mine = [trial for trial in found if trial.guarantee == key]
        cells = [_cell(engine, key, mine) for engine in ENGINES]
        tests = "; ".join(f"`{trial.name}`{_where(trial)}" for trial in mine)
        rows.append(f"| {sentence} | {' | '.join(cells)} | {tests} |")
    return "\n".join(rows) + "\n"


def _cell(engine: str, key: str, mine: list[Trial]) -> str:
    if any(engine in trial.engines for trial in mine):
        return "holds"
    if (engine, key) not in _REASONS:
        raise ValueError(f"nothing tries to break {key!r} in {engine}, and docs/guarantees.py says no reason")
    return _REASONS[engine, key]


def _where(trial: Trial) -> str:
    return "" if trial.engines == ENGINES else f" ({', '.join(trial.engines)})"


def page(written: str) -> str:
    """docs/security.md with the table as it is now."""
    before, _, rest = written.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}{END}{after}"
