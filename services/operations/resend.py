"""Events sent once more: after databases were restored, no queue holds what was on its way at the backup."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import update
from sqlalchemy.engine import CursorResult

from services.kernel.clock import database_millis
from services.kernel.db import Database
from services.kernel.inbox import CLAIMS_KEPT_MILLIS
from services.kernel.tables import outbox

HOUR_MILLIS = 3_600_000
# A consumer knows what it has handled for so long; what is older would have its effect again.
HOURS_MOST = CLAIMS_KEPT_MILLIS // HOUR_MILLIS - 24


async def resend(databases: Mapping[str, Database], *, hours: int) -> dict[str, int]:
    """Have the relays send again what was recorded in the last hours; returns how many events, by service.

    Whoever had an event already knows it: only effects that are missing come about.
    """
    counts = {}
    for name, database in databases.items():
        async with database.write() as session:
            result = await session.execute(
                update(outbox)
                .where(
                    outbox.c.sent_millis.is_not(None),
                    outbox.c.buried_millis.is_(None),  # given up by a person: it stays so
                    outbox.c.recorded_millis >= database_millis() - hours * HOUR_MILLIS,
                )
                .values(sent_millis=None, not_before_millis=0, attempts=0)
            )
            session.info["recorded_event"] = True  # the relay looks at once
            counts[name] = result.rowcount if isinstance(result, CursorResult) else 0
    return counts
