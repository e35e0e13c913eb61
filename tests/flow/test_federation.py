"""A whole federation built from nothing by the commands of its people, and what each of them then sees."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pexpect
import pytest

from containers.small import write_cases, write_container
from deployed.deployment import Deployment, deployment
from flow.test_path import assert_nothing_is_left_over, rows
from medperf.manifest import Role
from peers.people import PASSWORD, Person, write_benchmark
from tutorials.path import EmbeddedServer

DELIVERY_SECONDS = 20
SERVICES = ("accounts", "registry", "associations", "results", "notifications")
ADMINISTRATOR = "ann"
COMMITTEES = ("committee-a", "committee-b")
SITES = ("site-1", "site-2", "site-3")
MODEL_OWNERS = ("models-1", "models-2", "models-3")

# Person × command -> what its list must hold, by IDs. A result is seen w(hole), with its s(cores) but not its
# dataset, or known to e(xist). A notification is about a b(enchmark), an a(ssociation) or a r(esult): ? asked,
# + approved, - rejected.
COLUMNS = (
    "container ls",
    "model ls",
    "benchmark ls",
    "benchmark ls --pending",
    "dataset ls",
    "association ls",
    "association ls --pending",
    "result ls",
    "notifications ls",
)
TABLE = """
ann         | 1-9 | 2 4 6-9 | 1-5   | 5 | 1-3 | 1-9       |   | 1-3e 4-6s    |
committee-a | 1-8 | 2 4 6-8 | 1-3 5 | 5 | 1-3 | 1 2 5 6 9 | 9 | 1-3w 4-6s    | b1+ b3- a1? a2? a5? a6? a9? r1 r2 r3
committee-b | 1-8 | 2 4 6-8 | 1 2 4 |   | 2 3 | 3 4 7 8   |   | 4-6w         | b2+ a3+ a4? a7? a8? r4 r5 r6
site-1      | 1-8 | 2 4 6-8 | 1 2   |   | 1   | 5         |   | 1-3w 4-6s    | a5+
site-2      | 1-8 | 2 4 6-8 | 1 2   |   | 2   | 6 7       |   | 4-5w 6s      | a6- a7+
site-3      | 1-8 | 2 4 6-8 | 1 2   |   | 3   | 8 9       |   | 4-5s 6w      | a8+
models-1    | 1-8 | 2 4 6-8 | 1 2   |   |     | 1         |   | 2e 4-6s      | a1+ r2
models-2    | 1-8 | 2 4 6-8 | 1 2   |   |     | 2 3       |   | 3e 4-6s      | a2+ a3? r3 r5 r6
models-3    | 1-9 | 2 4 6-9 | 1 2   |   |     | 4         |   | 4-6s         | a4-
"""


class Federation:
    """A server that was not seeded, and its people, each on a machine of their own."""

    def __init__(self, server: EmbeddedServer | Deployment, people: dict[str, Person]) -> None:
        self.server = server
        self.people = people
        self.typed: set[tuple[str, str]] = set()
        self.given_out: dict[str, str] = {}

    def do(self, name: str, *words: object, asks: bool = False) -> str:
        """Type a person's command; what it printed. The first of each that asks is answered at a terminal."""
        person = self.people[name]
        kind = (str(words[0]), str(words[1]))
        if not asks:
            return person.do(*words)
        if kind in self.typed:
            return person.do(*words, "--yes")
        self.typed.add(kind)
        with person.at_a_terminal(" ".join(f"'{word}'" for word in ("medperf", *words))) as terminal:
            terminal.expect_exact("[y/N]:")
            before: str = terminal.before
            terminal.sendline("y")
            terminal.expect(pexpect.EOF)
            after: str = terminal.before
        assert terminal.exitstatus == 0, before + after
        return (before + after).replace("\r", "")

    def log_in(self, name: str) -> None:
        with self.people[name].at_a_terminal("medperf login") as terminal:
            terminal.expect(r"(?i)username: ")
            terminal.sendline(name)
            terminal.expect(r"(?i)password: ")
            terminal.sendline(PASSWORD)
            terminal.expect_exact(f"as {name}")
            terminal.expect(pexpect.EOF)

    def give_out(self, name: str, folder: Path) -> str:
        """A person packs a folder, and has the operator give the archive out; its URL."""
        machine = self.people[name].machine
        archive = machine / f"packed-{len(list(machine.glob('packed-*')))}.tar.gz"
        digest = self.do(name, "container", "pack", folder, "-o", archive).rpartition("SHA-256: ")[2]
        if digest not in self.given_out:
            found = re.search(r"^URL: (\S+)$", self.server.command("asset", "add", str(archive)), re.MULTILINE)
            assert found is not None
            self.given_out[digest] = found[1]
        return self.given_out[digest]

    def container(self, name: str, role: Role, *, is_operational: bool = True) -> int:
        """A person registers a container of their own."""
        machine = self.people[name].machine
        kind = f"{role}-{len(list(machine.glob(f'{role}-?')))}"
        folder = write_container(machine / kind, role, name=f"{name}-{kind}")
        url = self.give_out(name, folder / "workspace" / "additional_files")
        printed = self.do(name, "container", "submit", folder, "--additional_files", url, asks=True)
        uid = self.people[name].uid_of(printed)
        if is_operational:
            self.do(name, "container", "set-operational", uid, asks=True)
        return uid

    def benchmark(self, committee: str, *, is_operational: bool = True, **said: object) -> int:
        """A committee registers a benchmark."""
        file = write_benchmark(self.people[committee], **said)
        uid = self.people[committee].uid_of(self.do(committee, "benchmark", "submit", file, asks=True))
        if is_operational:
            self.do(committee, "benchmark", "set-operational", uid, asks=True)
        return uid

    def dataset(self, name: str, benchmark: int, texts: tuple[str, ...]) -> int:
        """A site prepares data for a benchmark, and registers its metadata."""
        cases = write_cases(self.people[name].machine / "cases", texts)
        paths = ("--data_path", cases / "images", "--labels_path", cases / "labels")
        printed = self.do(name, "dataset", "create", "--name", name, *paths, "--benchmark", benchmark)
        generated = re.search(r"Generated UID: (\w+)", printed)
        assert generated is not None
        printed = self.do(name, "dataset", "submit", "--data_uid", generated[1], asks=True)
        found = re.search(r"Server UID: (\d+)", printed)
        assert found is not None
        return int(found[1])

    def ask(self, name: str, benchmark: int, option: str, part: int) -> int:
        """Somebody asks that a dataset or a model take part."""
        noun = "dataset" if option == "--data_uid" else "model"
        pair = ("--benchmark_uid", benchmark, option, part)
        found = re.search(r"Association (\d+) is PENDING", self.do(name, noun, "associate", *pair, asks=True))
        assert found is not None
        return int(found[1])


@contextmanager
def embedded(folder: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


SERVERS: dict[str, Callable[[Path], AbstractContextManager[EmbeddedServer | Deployment]]] = {
    "embedded": embedded,
    "deployed": deployment,
}


@pytest.fixture(params=["embedded", pytest.param("deployed", marks=pytest.mark.xdist_group("deployment"))])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedServer | Deployment]:
    """All in one process, or each service apart on RabbitMQ and PostgreSQL behind nginx."""
    with SERVERS[request.param](tmp_path / "server") as at_work:
        yield at_work


@pytest.fixture
def federation(
    server: EmbeddedServer | Deployment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Federation:
    people = {}
    for name in (ADMINISTRATOR, *COMMITTEES, *SITES, *MODEL_OWNERS):
        role = ["--admin"] if name == ADMINISTRATOR else []
        server.command("user", "add", name, "--password-stdin", *role, given=f"{PASSWORD}\n")
        people[name] = Person(name, tmp_path / name, server.url, monkeypatch, capsys)
        people[name].machine.mkdir()
    return Federation(server, people)


def set_up(federation: Federation) -> None:
    """The committees' containers and benchmarks, the administrator's decisions, the owners' models."""
    a, b = COMMITTEES
    assert [federation.container(a, role) for role in Role] == [1, 2, 3]
    assert [federation.container(b, role) for role in (Role.MODEL, Role.METRICS)] == [4, 5]
    assert [federation.container(name, Role.MODEL) for name in MODEL_OWNERS] == [6, 7, 8]
    assert federation.container("models-3", Role.MODEL, is_operational=False) == 9

    demo = federation.give_out(a, write_cases(federation.people[a].machine / "demo"))
    of_a = {"preparation": 1, "reference_model": 2, "metrics": 3}
    of_b = {"preparation": 1, "reference_model": 4, "metrics": 5}
    assert federation.benchmark(a, name="a", **of_a, demo_data_url=demo) == 1
    # The second committee shares the first one's preparation: a site's dataset serves both.
    assert federation.benchmark(b, name="b", **of_b, public_scores=True) == 2
    assert federation.benchmark(a, name="to be rejected", **{**of_a, "metrics": 5}) == 3
    assert federation.benchmark(b, name="not ready", **{**of_b, "metrics": 3}, is_operational=False) == 4
    assert federation.benchmark(a, name="to be decided", **{**of_a, "reference_model": 4}) == 5
    for verb, uid in (("approve", 1), ("approve", 2), ("reject", 3)):
        federation.do(ADMINISTRATOR, "benchmark", verb, uid)


def bring_models(federation: Federation) -> None:
    """Models ask, one is invited, one is rejected."""
    assert federation.ask("models-1", 1, "--model_uid", 6) == 1
    assert federation.ask("models-2", 1, "--model_uid", 7) == 2
    assert federation.ask("committee-b", 2, "--model_uid", 7) == 3
    assert federation.ask("models-3", 2, "--model_uid", 8) == 4
    federation.do("committee-a", "association", "approve", 1)
    federation.do("committee-a", "association", "approve", "--benchmark_uid", 1, "--model_uid", 7)
    federation.do("models-2", "association", "approve", 3)
    federation.do("committee-b", "association", "reject", 4, "--reason", "It is not reproducible.")
    of_model_7 = ("--benchmark_uid", 1, "--model_uid", 7, "--priority", 10)
    assert "its priority is 10 now" in federation.do(
        "committee-a", "association", "set_priority", *of_model_7, asks=True
    )


def bring_data(federation: Federation) -> None:
    """Sites prepare, register and ask; run what is due; submit scores."""
    assert federation.dataset("site-1", 1, ("one", "three", "fifteen")) == 1
    assert federation.dataset("site-2", 1, ("two", "four")) == 2
    assert federation.dataset("site-3", 2, ("six", "seven", "eight", "nine")) == 3
    asked = [
        federation.ask(name, benchmark, "--data_uid", dataset)
        for name, benchmark, dataset in (
            ("site-1", 1, 1), ("site-2", 1, 2), ("site-2", 2, 2), ("site-3", 2, 3), ("site-3", 1, 3),
        )
    ]  # fmt: skip
    assert asked == [5, 6, 7, 8, 9]
    federation.do("committee-a", "association", "approve", 5)
    federation.do("committee-a", "association", "reject", 6, "--reason", "Too few cases.")
    federation.do("committee-b", "association", "approve", 7)
    federation.do("committee-b", "association", "approve", 8)
    for site, benchmark, dataset, models in (
        ("site-1", 1, 1, (2, 7, 6)),  # by priority
        ("site-2", 2, 2, (4, 7)),
        ("site-3", 2, 3, (4, 7)),
    ):
        printed = federation.do(site, "benchmark", "run", "--benchmark", benchmark, "--data_uid", dataset)
        lines = [line.split() for line in printed.splitlines()[2 : 2 + len(models)]]
        names = [f"b{benchmark}m{model}d{dataset}" for model in models]
        assert [line[:2] for line in lines] == [[str(m), n] for m, n in zip(models, names, strict=True)]
        sent = sorted(names)[1:] if site == "site-3" else sorted(names)
        words = [word for name in sent for word in ("--result", name)]
        assert printed.count("True") == 1, "the reference model was run when the site asked"
        assert "✅ Done!" in federation.do(site, "result", "submit", *words, asks=True)


# Some 150 commands, a quarter of them processes of their own: more than a test may take on a busy machine.
@pytest.mark.timeout(900)
def test_a_federation_is_built_by_its_peoples_commands_and_everybody_sees_what_concerns_them_alone(
    federation: Federation,
) -> None:
    for name in federation.people:
        federation.log_in(name)
    set_up(federation)
    bring_models(federation)
    bring_data(federation)
    wait_for_deliveries(federation.server)

    lists, wanted = seen(federation), expected()
    for name, theirs in wanted.items():
        for command, items_wanted in theirs.items():
            assert lists[name][command] == items_wanted, f"{name}: medperf {command}"
    for name, reason, uid in (
        ("models-3", "It is not reproducible.", 4),
        ("committee-a", "Too few cases.", 6),
        ("site-2", "Too few cases.", 6),
    ):
        assert json.loads(federation.do(name, "association", "view", uid, "--json"))["reason"] == reason
    assert_nothing_is_shown_that_is_not_listed(federation)
    assert_nothing_is_left_over(federation.server)


def wait_for_deliveries(server: EmbeddedServer | Deployment) -> None:
    """Every event was handled: what people see no longer changes by itself."""
    deadline = time.monotonic() + DELIVERY_SECONDS
    while time.monotonic() < deadline:
        waiting = [
            rows(server, service, "SELECT count(*) FROM outbox WHERE sent_millis IS NULL")[0][0]
            for service in SERVICES
        ]
        waiting += [rows(server, service, "SELECT count(*) FROM inbox_message")[0][0] for service in SERVICES]
        if not any(waiting):
            return
        time.sleep(0.1)
    pytest.fail(f"events still wait after {DELIVERY_SECONDS} s: {waiting}")


TOLD = {"requested": "?", "approved": "+", "rejected": "-", "submitted": ""}
SHOWN: dict[str, Callable[[dict[str, object]], str]] = {
    "result ls": lambda it: f"{it['id']}{'w' if it['dataset_id'] else 's' if it['metrics'] else 'e'}",
    "notifications ls": lambda it: told(str(it["topic"]), str(it["about"])),
}


def told(topic: str, about: str) -> str:
    """A notification in short: `a5+` for the approval of association 5."""
    noun, _, uid = about.partition("/")
    return f"{noun[0]}{uid}{TOLD[topic.split('.')[1]]}"


def seen(federation: Federation) -> dict[str, dict[str, list[str]]]:
    """What each person's lists hold."""
    return {
        name: {
            command: sorted(
                SHOWN.get(command, lambda it: str(it["id"]))(item)
                for item in json.loads(federation.do(name, *command.split(), "--json"))
            )
            for command in COLUMNS
        }
        for name in federation.people
    }


def expected() -> dict[str, dict[str, list[str]]]:
    table = {}
    for line in TABLE.strip().splitlines():
        name, *cells = (cell.strip() for cell in line.split("|"))
        table[name] = {command: sorted(items(cell)) for command, cell in zip(COLUMNS, cells, strict=True)}
    return table


def items(cell: str) -> Iterator[str]:
    """Each item of a cell, where `4-6s` stands for three."""
    for item in cell.split():
        several = re.fullmatch(r"(\d)-(\d)(\w?)", item)
        if several is None:
            yield item
        else:
            yield from (f"{uid}{several[3]}" for uid in range(int(several[1]), int(several[2]) + 1))


def assert_nothing_is_shown_that_is_not_listed(federation: Federation) -> None:
    """Whoever guesses an ID learns no more than their list tells."""
    for name, lists in expected().items():
        person = federation.people[name]
        for noun, most in (("container", 9), ("benchmark", 5), ("dataset", 3), ("association", 9), ("result", 6)):
            known = {re.sub(r"\D", "", item) for item in lists[f"{noun} ls"]}
            for uid in range(1, most + 1):
                if str(uid) not in known:
                    person.try_to(noun, "view", uid)
                    assert (person.code, f"There is no {noun} {uid} that you may see" in person.said) == (6, True)
