"""Who may read the secret files of a deployment."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from services import secret_files

# As root another group than one's own shows that it was set; anybody else may give files to their own groups only.
GROUP = 10001 if os.getuid() == 0 else os.getgid()


def modes(folder: Path) -> set[tuple[int, int]]:
    """Of each file: its mode and its group."""
    return {(stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) for path in folder.iterdir()}


def test_secrets_are_their_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    secret_files.create(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {mode for mode, _ in modes(folder)} == {0o600}


def test_a_group_may_read_them_and_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    secret_files.create(folder, group=GROUP)
    assert (stat.S_IMODE(folder.stat().st_mode), folder.stat().st_gid) == (0o2750, GROUP)
    assert modes(folder) == {(0o640, GROUP)}


@pytest.mark.parametrize("name", ["registry_broker_password", "signing_keys.json"])
def test_the_group_may_read_a_renewed_one_too(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "secrets"
    secret_files.create(folder, group=GROUP)
    before = (folder / name).read_text()
    secret_files.renew(folder, name)
    assert (folder / name).read_text() != before
    assert modes(folder) == {(0o640, GROUP)}


def test_those_that_are_there_are_opened_to_a_group_and_stay_what_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    secret_files.create(folder)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert secret_files.create(folder, group=GROUP) == []
    assert modes(folder) == {(0o640, GROUP)}
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def test_a_folder_that_others_may_read_does_not_open_the_secrets(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    folder.chmod(0o755)
    secret_files.create(folder)
    assert {mode for mode, _ in modes(folder)} == {0o600}


def test_an_upgrade_makes_the_brokers_definitions_anew_where_they_changed_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    secret_files.create(folder)
    kept = {path.name: path.read_text() for path in folder.iterdir()}
    assert secret_files.create(folder) == [], "nothing is made anew without a reason"
    definitions = folder / secret_files.BROKER_DEFINITIONS
    old = json.loads(definitions.read_text())
    lost = old["queues"].pop()
    old["topic_permissions"][0]["write"] = "^$"
    definitions.write_text(json.dumps(old))
    assert secret_files.create(folder) == [secret_files.BROKER_DEFINITIONS]
    made = json.loads(definitions.read_text())
    assert lost in made["queues"]
    assert made["topic_permissions"][0]["write"] != "^$"
    del kept[secret_files.BROKER_DEFINITIONS]
    assert {name: (folder / name).read_text() for name in kept} == kept
