"""Many people at work while something is killed, frozen or cut off every second: nothing is lost or done twice.

`make faults` runs the long form and writes the report; `make test` a short one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import aio_pika
import pytest

from deployed.checker import Checker, Findings
from deployed.deployment import Deployment, deployment
from deployed.injuries import Injuries
from deployed.workload import ADMINISTRATOR, PASSWORD, Workload
from servers.found import program
from services.kernel import topology

SEED = int(os.environ.get("MEDPERF_FAULTS_SEED", "20261125"))
COMMANDS = int(os.environ.get("MEDPERF_FAULTS_COMMANDS", "300"))
FAULTS = int(os.environ.get("MEDPERF_FAULTS_INJURIES", "15"))
HAS_CLUSTER = os.environ.get("MEDPERF_FAULTS_CLUSTER") == "1"
CUTS = (10, 30) if FAULTS > 15 else (10,)
REPORT = os.environ.get("MEDPERF_FAULTS_REPORT")
# One deployment at a time: a machine with two cores has none to spare.
pytestmark = [pytest.mark.timeout(900 if FAULTS <= 15 else 7200), pytest.mark.xdist_group("deployment")]

EVERY_SECONDS = 1.0
QUIET_SECONDS = 240.0
_UNREADABLE = topology.UNREADABLE_SUFFIX


def test_nothing_is_lost_or_done_twice_whatever_is_killed_frozen_or_cut_off(tmp_path: Path) -> None:
    with deployment(tmp_path, has_cable=True, has_cluster=HAS_CLUSTER, clocks=clocks()) as whole:
        workload = Workload(whole.url, sites=12, committees=3, seed=SEED)
        whole.add_accounts(workload.names(), PASSWORD, administrator=ADMINISTRATOR)
        injuries = Injuries(whole, seed=SEED, cuts=CUTS)
        began = time.monotonic()
        asyncio.run(_work_under(workload, injuries))
        worked_seconds = time.monotonic() - began
        whole.wait_until_ready()
        found = asyncio.run(_found(whole, workload))
        unreadable = _unreadable(whole)
        expected = {queue: count for queue, count in injuries.poison.items() if count}
        why = [
            line for queue in unreadable.keys() - expected for line in asyncio.run(_why_unreadable(whole, queue))
        ]
    report = _report(workload, injuries, found, worked_seconds)
    print(report)
    if REPORT:
        Path(REPORT).write_text(report)
    assert found.all == []
    assert unreadable == expected, "\n".join(why)
    assert len(workload.acknowledged) >= COMMANDS
    if FAULTS > 15:
        assert set(injuries.done) == set(injuries.kinds), "each kind of fault happened"


def clocks() -> dict[str, dict[str, str]]:
    """One worker is days ahead, one web process half a minute behind; the machine's own clock is left alone."""
    library = program("libfaketime.so.1", package="libfaketime", folders=("/usr/lib/*/faketime",))
    shift = {"LD_PRELOAD": str(library), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return {
        "results worker 1": {**shift, "FAKETIME": "+3d"},
        "associations 127.0.3.2": {**shift, "FAKETIME": "-30s"},
    }


async def _work_under(workload: Workload, injuries: Injuries) -> None:
    def is_enough() -> bool:
        print(f"{injuries.done.total()} faults, {len(workload.acknowledged)} commands", flush=True)
        done = injuries.done.total() >= FAULTS and len(workload.acknowledged) >= COMMANDS
        return done or work.done()

    async with asyncio.TaskGroup() as group:
        work = group.create_task(workload.run())
        await injuries.run(every_seconds=EVERY_SECONDS, until=is_enough)
        workload.is_enough = True


async def _found(whole: Deployment, workload: Workload) -> Findings:
    checker = Checker(whole.database_server)
    await checker.until_quiet(seconds=QUIET_SECONDS)
    return await checker.check(workload.acknowledged)


def _unreadable(whole: Deployment) -> Mapping[str, int]:
    """By queue: how many it kept as unreadable, once every delivery was taken, also those repeated last."""
    deadline = time.monotonic() + QUIET_SECONDS
    while waiting := {name: count for name, count in _queues(whole).items() if not name.endswith(_UNREADABLE)}:
        assert time.monotonic() < deadline, f"still in the queues: {waiting}"
    return {name.removesuffix(_UNREADABLE): count for name, count in _queues(whole).items()}


def _queues(whole: Deployment) -> Mapping[str, int]:
    """The broker's queues that hold messages, and how many each."""
    listed = whole.rabbitmq.ctl(
        "list_queues", "--vhost", "medperf", "--quiet", "--no-table-headers", "name", "messages"
    )
    counts = {name: int(count) for name, count in (line.split() for line in listed.splitlines())}
    return {name: count for name, count in counts.items() if count}


async def _why_unreadable(whole: Deployment, queues: Iterable[str]) -> list[str]:
    """The messages that nobody made unreadable on purpose, each with what the broker says of its death."""
    broker = whole.rabbitmq
    lines = []
    async with await aio_pika.connect(broker.url_of(broker.user, broker.password, "medperf")) as connection:
        channel = await connection.channel()
        for queue in queues:
            kept = await channel.get_queue(f"{queue}{_UNREADABLE}")
            while (message := await kept.get(no_ack=True, fail=False)) is not None:
                lines.append(f"{queue}: {message.headers} {message.properties} {message.body[:2_000]!r}")
    return lines


def _report(workload: Workload, injuries: Injuries, found: Findings, seconds: float) -> str:
    counts = {**found.counts, "faults": injuries.done.total()}
    outcome = {
        "lost": len(found.lost),
        "double effects": len(found.doubled),
        "differences between copies and owners": len(found.differing),
        "messages unaccounted for": len(found.unaccounted),
    }
    lines = [f"Seed {SEED}; {seconds:.0f} s of work.", "", "| counted | |", "|---|---|"]
    lines += [f"| {what} | {count:,} |" for what, count in (counts | outcome).items()]
    lines += ["", "| fault | times |", "|---|---|"]
    lines += [f"| {kind} | {count} |" for kind, count in sorted(injuries.done.items())]
    lines += ["", "| tried again because of | times |", "|---|---|"]
    lines += [f"| {why} | {count} |" for why, count in workload.retries.most_common()]
    lines += ["", *found.all[:50]]
    return "\n".join(lines).rstrip() + "\n"
