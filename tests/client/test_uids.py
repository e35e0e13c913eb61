"""Which dataset a person means by what they type, and what the client tells them to type."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from client.conftest import Serve
from medperf.carried import Carried, TakingPart
from medperf.cli.main import run
from medperf.datasets import Link, LocalDataset, find_dataset, is_server_id, uid_to_type
from medperf.errors import UsageError
from medperf.home import Home
from medperf.identity import hash_folders, records_to_json
from peers import answers
from peers.kept import local_dataset
from peers.scripted_peer import Asked, Reply


@pytest.fixture
def home(home_folder: Path) -> Home:
    return Home.at("http://localhost:8000")


@pytest.mark.parametrize(
    ("given", "is_one"),
    [
        ("1", True),
        ("999999999", True),
        ("1000000000", False),
        ("01", False),
        ("0", False),
        ("3a", False),
        ("a", False),
        ("", False),
        (" 1", False),
        ("1\n", False),
        ("-1", False),
        ("١", False),
    ],
)
def test_up_to_nine_digits_not_beginning_with_0_are_a_server_uid_and_nothing_else_is(
    given: str, is_one: bool
) -> None:
    assert is_server_id(given) is is_one


def test_a_server_uid_that_is_not_here_is_no_beginning_of_another_datasets_uid(home: Home) -> None:
    local_dataset(home, "1", server_id=1)
    third = local_dataset(home, "3", server_id=2)
    with pytest.raises(UsageError, match="has the server UID 3") as refused:
        find_dataset(home, "3")
    assert "ten digits" in str(refused.value)
    assert find_dataset(home, "2") == third
    assert find_dataset(home, "3" * 10) == third


def test_digits_after_a_0_are_the_beginning_of_a_generated_uid(home: Home) -> None:
    zero = local_dataset(home, "0", server_id=7)
    assert find_dataset(home, "00") == zero
    with pytest.raises(UsageError, match="begins with '07'"):
        find_dataset(home, "07")


def test_asking_to_take_part_with_a_number_that_is_no_server_uid_here_asks_for_nothing(
    home_folder: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = serve({})
    home = Home.at(peer.url)
    local_dataset(home, "1", server_id=1)
    local_dataset(home, "3", server_id=2)
    assert run(["dataset", "associate", "-b", "1", "-d", "3", "-y"]) == 2
    assert "No dataset on this machine has the server UID 3." in capsys.readouterr().err
    assert {asked.path for asked in peer.asked} == {"/api/v1/server"}


def named(home: Home, uid: str) -> LocalDataset:
    return local_dataset(home, generated_uid=uid, folder=home.datasets / uid)


@pytest.mark.parametrize(
    ("uid", "others", "typed"),
    [
        ("379d22e6" + "6" * 32, (), "379d22e6"),
        ("12345678" + "9a" + "6" * 30, (), "123456789a"),
        ("123456781" + "7" + "6" * 30, (), "1234567817"),
        ("01234567" + "8" * 32, (), "01234567"),
        ("379d22e6" + "66" + "0" * 30, ("379d22e6" + "67" + "0" * 30,), "379d22e666"),
    ],
)
def test_what_a_hint_says_to_type_means_that_dataset_and_no_other(
    home: Home, uid: str, others: tuple[str, ...], typed: str
) -> None:
    dataset = named(home, uid)
    for other in others:
        named(home, other)
    assert uid_to_type(dataset) == typed
    assert find_dataset(home, typed) == dataset


def test_the_hint_for_a_dataset_that_is_not_submitted_can_be_typed(
    home_folder: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home.at(serve({}).url)
    local_dataset(home, "3")
    assert run(["dataset", "associate", "-b", "1", "-d", "3" * 10, "-y"]) == 2
    assert "medperf dataset submit --data_uid 3333333333\n" in capsys.readouterr().err


def test_the_hint_for_another_persons_dataset_can_be_typed(home: Home) -> None:
    local_dataset(home, "3", links_of_others=(Link(server_id=9, owner_id=8),))
    with pytest.raises(UsageError, match="registered by somebody else") as refused:
        find_dataset(home, "9")
    assert "--data_uid 3333333333`" in refused.value.hint


def test_of_a_carried_dataset_too_it_is_said_what_stands_otherwise(
    home_folder: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Reply.of(answers.dataset(7, name="the first name"))
    pending = Reply.of(answers.page(answers.association(8, state="APPROVED", part_id=7)))
    replies = {"POST /api/v1/datasets": before, "GET /api/v1/associations": pending}
    peer = serve({**replies, "GET /api/v1/benchmarks/1": Reply.of(answers.benchmark())})
    Carried(
        server=peer.url,
        store_id=UUID(answers.STORE),
        written_at=datetime.now(UTC),
        dataset=prepared(Home.at(peer.url)).body(),
        taking_part=TakingPart(benchmark_id=1, summary={}),
    ).write(Path("carried.yaml"))
    assert run(["dataset", "submit", "--from", "carried.yaml", "-y"]) == 0
    printed = capsys.readouterr().out
    assert "that one stands, and what you say now is not kept" in printed
    assert 'name: registered is "the first name", you gave ' in printed
    assert "Next: medperf bundle export" in printed


def test_what_the_server_says_of_data_that_was_registered_before_stands_here_too(
    home_folder: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    def stands(asked: Asked) -> Reply:
        return Reply.of(answers.dataset(7, name="the first name", location="Ward 3", description="of before"))

    home = Home.at(serve({"POST /api/v1/datasets": stands}).url)
    dataset = prepared(home)
    assert run(["dataset", "submit", "-d", dataset.generated_uid, "-y"]) == 0
    printed = capsys.readouterr().out
    assert "that one stands, and what you say now is not kept" in printed
    assert 'name: registered is "the first name", you gave ' in printed
    assert 'location: registered is "Ward 3", you gave ' in printed
    kept = find_dataset(home, "7")
    assert (kept.name, kept.location, kept.description) == ("the first name", "Ward 3", "of before")
    assert run(["dataset", "ls", "--local"]) == 0
    assert "the first name" in capsys.readouterr().out


def prepared(home: Home) -> LocalDataset:
    """A dataset whose files are those that its UID was made of."""
    made = home.root / "made"
    for name in ("data", "labels"):
        (made / name).mkdir(parents=True)
        (made / name / "case.txt").write_text(name)
    identity = hash_folders({name: made / name for name in ("data", "labels")})
    dataset = local_dataset(
        home, generated_uid=identity.uid, data_hash=identity.data_hash, folder=home.datasets / identity.uid
    )
    for name in ("data", "labels"):
        (made / name).rename(dataset.folder / name)
    (dataset.folder / "records.json").write_text(records_to_json(identity.records))
    return dataset
