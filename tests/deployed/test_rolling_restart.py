"""Every process is stopped and started again, one after another, while people work."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deployed.checker import Checker, Findings
from deployed.deployment import Deployment, deployment
from deployed.workload import ADMINISTRATOR, PASSWORD, Workload

# One deployment at a time: a machine with two cores has none to spare. Alone it takes a minute or two.
pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("deployment")]

QUIET_SECONDS = 60.0
# The doors that the orchestrator has closed before it stops a process: nginx counts `valid=1s` in whole seconds.
LEAVES_SECONDS = 2.5


def test_a_rolling_restart_under_load_fails_no_request_but_those_that_a_client_repeats(tmp_path: Path) -> None:
    with deployment(tmp_path) as whole:
        workload = Workload(whole.url, sites=6, committees=2, seed=1)
        whole.add_accounts(workload.names(), PASSWORD, administrator=ADMINISTRATOR)
        asyncio.run(_restart_all_of(whole, workload))
        found = asyncio.run(_found(whole, workload))
    print(f"{len(workload.acknowledged)} commands, tried again: {dict(workload.retries)}")
    assert found.all == []
    # A worker that is restarted delays its events: a request that has seen more is told to come again.
    assert set(workload.retries) <= {"503 not_known_yet"}, workload.retries


async def _restart_all_of(whole: Deployment, workload: Workload) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(workload.run())
        for service, peers in whole.webs.items():
            name = f"{service}.test"
            for number, peer in enumerate(peers):
                everywhere = whole.names.names[name]
                whole.names.names[name] = everywhere[:number] + everywhere[number + 1 :]
                await asyncio.sleep(LEAVES_SECONDS)
                await asyncio.to_thread(peer.life.stop)
                await asyncio.to_thread(peer.life.start)
                await asyncio.to_thread(whole.wait_until_ready)
                whole.names.names[name] = everywhere
        for peers in whole.workers.values():
            for peer in peers:
                await asyncio.to_thread(peer.life.stop)
                await asyncio.to_thread(peer.life.start)
                await asyncio.to_thread(whole.wait_until_ready)
        workload.is_enough = True


async def _found(whole: Deployment, workload: Workload) -> Findings:
    checker = Checker(whole.database_server)
    await checker.until_quiet(seconds=QUIET_SECONDS)
    return await checker.check(workload.acknowledged)
