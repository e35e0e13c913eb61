"""Client and server say their releases to each other; one that is too old is told what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from client.conftest import NewPerson
from medperf.cli.main import run
from medperf_contracts.releases import CLIENT, is_older, release_in
from peers import answers
from peers.scripted_peer import Reply, Script, ScriptedPeer

Serve = Callable[[Mapping[str, Reply | Script]], ScriptedPeer]
TOO_OLD = 17


@pytest.mark.parametrize(
    ("release", "oldest", "says"),
    [("0.1.0", "0.1.0", False), ("0.0.9", "0.1.0", True), ("0.9.0", "0.10.0", True), ("1.0.0", "0.10.0", False)],
)
def test_releases_are_compared_by_number(release: str, oldest: str, says: bool) -> None:
    assert is_older(release, oldest) is says


@pytest.mark.parametrize(
    "said", [None, "", "medperf", "medperf/1", "medperf/1.2.x", "curl/8.0.0", "medperf/1.2.3 "]
)
def test_what_names_no_release_of_ours_is_none(said: str | None) -> None:
    assert release_in(said, "medperf") is None


@pytest.mark.parametrize(("release", "code"), [("0.0.9", TOO_OLD), ("0.1.0", 0), ("2.0.0", 0)])
def test_a_server_that_is_too_old_is_refused_with_what_to_do(
    serve: Serve, capsys: pytest.CaptureFixture[str], release: str, code: int
) -> None:
    peer = serve({"GET /api/v1/datasets": Reply.of(answers.page(), Medperf_Server=f"medperf-server/{release}")})
    assert run(["dataset", "ls"]) == code
    said = capsys.readouterr().err
    assert ("is of release 0.0.9, which this client (medperf/0.1.0) no longer understands" in said) is (code != 0)
    assert ("Ask its operator for release 0.1.0 or later" in said) is (code != 0)
    assert {asked.headers["medperf-client"] for asked in peer.asked} == {CLIENT}


def test_a_client_that_is_too_old_is_told_by_the_server_and_changes_nothing(
    person: NewPerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = person("ada")
    monkeypatch.setattr("medperf.wire.CLIENT", "medperf/0.0.9")
    for command in (["dataset", "ls"], ["benchmark", "view", "1"]):
        ada.try_to(*command)
        assert ada.code == TOO_OLD
        assert "no longer understands medperf 0.0.9" in ada.said
        assert "Install medperf 0.1.0 or later" in ada.said
