"""A backup taken while people work, put back elsewhere: nothing acknowledged before it is missing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deployed.checker import Checker, Findings
from deployed.deployment import SETTINGS, Deployment, deployment
from deployed.workload import ADMINISTRATOR, PASSWORD, Acknowledged, Workload
from servers.postgresql import back_up, restored

# One deployment at a time: a machine with two cores has none to spare. Alone it takes a minute or two.
pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("deployment")]

BEFORE, AFTER = 120, 60
QUIET_SECONDS = 120.0


def test_what_was_acknowledged_before_a_backup_is_there_after_it_was_restored_with_all_its_effects(
    tmp_path: Path,
) -> None:
    backup = tmp_path / "backup"
    with deployment(tmp_path / "first", replicas=1) as first:
        workload = Workload(first.url, sites=6, committees=2, seed=1)
        first.add_accounts(workload.names(), PASSWORD, administrator=ADMINISTRATOR)
        before = asyncio.run(_work_and_back_up(first, workload, backup))
        secrets, password = first.folder / "secrets", first.postgresql.password
    tmp_path.chmod(0o755)
    with (
        restored(backup, password=password, options=SETTINGS) as database,
        # Its broker is new: its queues are as empty as purged ones.
        deployment(tmp_path / "second", replicas=1, database=database, secrets=secrets) as second,
    ):
        second.command("events", "resend", "--hours", "24", "--yes")
        of_before = asyncio.run(_found(second, before))
        of_all = asyncio.run(_found(second, workload.acknowledged))
        said = second.command("verify")
    assert of_before.lost == []
    assert [*of_all.doubled, *of_all.differing, *of_all.unaccounted] == []
    assert len(before) >= BEFORE
    assert len(workload.acknowledged) >= len(before) + AFTER, "people went on while it was taken and after"
    print(said)


async def _work_and_back_up(whole: Deployment, workload: Workload, backup: Path) -> list[Acknowledged]:
    async with asyncio.TaskGroup() as group:
        work = group.create_task(workload.run())
        while len(workload.acknowledged) < BEFORE and not work.done():
            await asyncio.sleep(0.05)
        before = list(workload.acknowledged)
        await asyncio.to_thread(back_up, whole.postgresql, backup)
        while len(workload.acknowledged) < len(before) + AFTER and not work.done():
            await asyncio.sleep(0.05)
        workload.is_enough = True
    return before


async def _found(whole: Deployment, acknowledged: list[Acknowledged]) -> Findings:
    checker = Checker(whole.database_server)
    await checker.until_quiet(seconds=QUIET_SECONDS)
    return await checker.check(acknowledged)
