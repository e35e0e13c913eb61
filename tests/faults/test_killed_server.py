"""`kill -9` of the server at any moment of the path loses nothing acknowledged and doubles nothing."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults import federation
from faults.federation import MortalServer, raw_data, rows
from tutorials.path import Site, data_owner_path

SEED = int(os.environ.get("MEDPERF_FAULTS_SEED", "20261125"))
# Two walks of ten moments. At a command's seam the number says which command of the step; at an effect's, which
# delivery of the step's event; of the clock, milliseconds.
MOMENTS = {"answer": 3, "effect": 3, "mark": 2, "time": 2}
WALKS = 2
# Less than a lease of the relay: a server that was killed and started again does not wait for its own.
_DEADLINE_SECONDS = 25.0
# A step's commands (POST), and whether they tell of something.
_ASKS = {"medperf login": 1, "medperf tutorial approve": 2}
_TELLS = ("dataset submit", "dataset associate", "tutorial approve", "result submit")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MortalServer]:
    mortal = MortalServer(tmp_path / "server", moments=tmp_path / "moments")
    mortal.start()
    try:
        federation.seed_small(mortal, tmp_path / "tutorial")
        wait_until_all_is_delivered(mortal)
        yield mortal
    finally:
        mortal.stop()


def wait_until_all_is_delivered(server: MortalServer) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while server.waiting() or federation.unfinished(server):
        left = f"waiting: {server.waiting()}, unfinished: {federation.unfinished(server)}"
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def deal(moments: dict[str, int], commands: list[str], dice: random.Random) -> list[list[tuple[str, int]]]:
    """The moments of each step: one of a kind at most, an answer's first, since a command must be there for it."""
    dealt: list[list[tuple[str, int]]] = [[] for _ in commands]
    telling = [place for place, command in enumerate(commands) if any(words in command for words in _TELLS)]
    asking = [place for place, command in enumerate(commands) if command in _ASKS or place in telling]
    places = {"answer": asking, "effect": telling, "mark": telling, "time": list(range(len(commands)))}
    for kind, count in moments.items():
        for place in dice.sample(places[kind], count):
            # A result has one consumer, the other events two at least.
            deliveries = 1 if "result submit" in commands[place] else 2
            most = {"answer": _ASKS.get(commands[place], 1), "effect": deliveries, "mark": 1, "time": 800}[kind]
            dealt[place].append((kind, dice.randint(1, most)))
    return dealt


@pytest.mark.parametrize("walk", range(WALKS))
def test_the_path_ends_well_and_once_though_the_server_is_killed_ten_times(
    server: MortalServer, tmp_path: Path, walk: int
) -> None:
    print(f"MEDPERF_FAULTS_SEED={SEED}, walk {walk}")
    dice = random.Random(f"{SEED}/{walk}")
    site = Site(tmp_path, server.url, print)
    steps = data_owner_path(data=raw_data(tmp_path / "raw", "one", "three", "fifteen"))
    dealt = deal(MOMENTS, [step.command for step in steps], dice)
    said = ""
    for step, moments in zip(steps, dealt, strict=True):
        for kind, count in moments:
            print(f"[killed at: {kind} {count}]")
            server.arm(kind, count)
        said += site.walk(step)
        wait_until_all_is_delivered(server)
    assert Counter(moment.split()[0] for moment in server.fired()) == MOMENTS
    check_that_all_is_there_once(server, said)


def check_that_all_is_there_once(server: MortalServer, said: str) -> None:
    # What a command printed as done is there, under that ID, and nothing else is.
    assert rows(server, "registry", "SELECT id, state FROM datasets") == [(1, "OPERATION")]
    part = "SELECT id, state FROM associations WHERE part_kind = 'dataset'"
    [(association, state)] = rows(server, "associations", part)
    assert f"Association {association} is PENDING" in said
    assert state == "APPROVED"
    accepted = rows(server, "results", "SELECT id, benchmark_id, model_id, dataset_id FROM results ORDER BY id")
    told = {(int(uid), int(model)) for model, uid in re.findall(r"b1m(\d)d1 is accepted. Server UID: (\d+)", said)}
    assert {(uid, model) for uid, _, model, _ in accepted} == told
    assert [row[1:] for row in accepted] == [(1, 4, 1), (1, 2, 1)]
    # Every event has every effect, once; who is told is told once.
    claims = federation.effects(server)
    assert set(claims) == federation.promised_effects(server)
    notes = rows(server, "notifications", "SELECT user_id, topic, about FROM notifications")
    assert len(notes) == len(set(notes)) > 3
    # The log tells the same: no effect twice, and each that it tells of is there.
    lines = [json.loads(line) for line in (server.home / "server.log").read_text().splitlines()]
    handled = Counter(
        (line["consumer"], line["event_id"])
        for line in lines
        if line["event"] == "delivery" and line["outcome"] == "handled"
    )
    assert set(handled) <= set(claims)
    assert set(handled.values()) == {1}
    noted = Counter(line["notification_id"] for line in lines if line["event"] == "told")
    assert len(noted) >= len(notes)
