"""HTTP endpoints of the messages that do not get through: every service answers for its own, to the operator."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from medperf_contracts.dead_letters import (
    Actions,
    DeadLetters,
    Drop,
    Dropped,
    EventStory,
    MessageState,
    Replay,
    Replayed,
)
from medperf_contracts.values import Line

from . import dead_letter_actions, dead_letters
from .dead_letters import Filter
from .errors import NotAllowed
from .http import SessionParam, new_router, refusals
from .idempotency import IdempotencyKeyReused, InProgress
from .paging import PageParam


def router_of(service: str) -> APIRouter:
    """The endpoints of `service`: its name is in their paths, so that the one front door finds it."""
    router = new_router()
    path = f"/api/v1/dead-letters/{service}"

    @router.get(path, responses=refusals(NotAllowed))
    async def browse_dead_letters(
        session: SessionParam,
        event_id: Annotated[UUID | None, Query()] = None,
        consumer: Annotated[Line | None, Query()] = None,
        topic: Annotated[Line | None, Query()] = None,
        state: Annotated[MessageState | None, Query()] = None,
        cursor: Annotated[
            str | None,
            Query(pattern=dead_letters.CURSOR, description="next_cursor of the page before"),
        ] = None,
    ) -> DeadLetters:
        """Events that have not had their effect, oldest first."""
        event_ids = None if event_id is None else (str(event_id),)
        return await dead_letters.browse(session, Filter(event_ids, consumer, topic, state), after=cursor)

    @router.get(f"{path}/dropped", responses=refusals(NotAllowed))
    async def browse_dropped(session: SessionParam, asked: PageParam) -> Actions:
        """Events that an operator gave up, oldest first."""
        return await dead_letters.dropped(session, after=asked.after_id, limit=asked.limit)

    @router.get(f"{path}/story", responses=refusals(NotAllowed))
    async def tell_story(
        event_id: Annotated[UUID, Query()], session: SessionParam, data: Annotated[bool, Query()] = False
    ) -> EventStory:
        """All that this service knows of an event; what it holds only with `data`."""
        return await dead_letters.story(session, str(event_id), with_data=data)

    @router.post(f"{path}/replay", responses=refusals(NotAllowed, IdempotencyKeyReused, InProgress))
    async def replay_dead_letters(body: Replay, session: SessionParam) -> Replayed:
        """Try these again at once, or all."""
        count = await dead_letter_actions.replay(session, _filter(body), by=body.by, reason=body.reason)
        return Replayed(count=count)

    @router.post(f"{path}/drop", responses=refusals(NotAllowed, IdempotencyKeyReused, InProgress))
    async def drop_dead_letters(body: Drop, session: SessionParam) -> Dropped:
        """Give these up for good."""
        return Dropped(
            count=await dead_letter_actions.drop(session, _filter(body), by=body.by, reason=body.reason)
        )

    return router


def _filter(body: Replay | Drop) -> Filter:
    event_ids = None if body.event_ids is None else tuple(str(event_id) for event_id in body.event_ids)
    return Filter(event_ids, body.consumer, body.topic, body.state)
