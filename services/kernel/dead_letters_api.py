"""HTTP endpoints of the messages that do not get through: every service answers for its own, to the operator."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from medperf_contracts.dead_letters import DeadLetters, MessageState, Replay, Replayed

from . import dead_letters
from .errors import NotAllowed
from .http import SessionParam, new_router, refusals
from .idempotency import IdempotencyKeyReused, InProgress


def router_of(service: str) -> APIRouter:
    """The endpoints of `service`: its name is in their paths, so that the one front door finds it."""
    router = new_router()
    path = f"/api/v1/dead-letters/{service}"

    @router.get(path, responses=refusals(NotAllowed))
    async def browse_dead_letters(
        session: SessionParam,
        event_id: Annotated[UUID | None, Query()] = None,
        state: Annotated[MessageState | None, Query()] = None,
    ) -> DeadLetters:
        """Events that have not had their effect, oldest first."""
        wanted = dead_letters.Filter(event_id=str(event_id) if event_id else None, state=state)
        return await dead_letters.browse(session, wanted)

    @router.post(f"{path}/replay", responses=refusals(NotAllowed, IdempotencyKeyReused, InProgress))
    async def replay_dead_letters(body: Replay, session: SessionParam) -> Replayed:
        """Try these again at once, or all."""
        event_ids = None if body.event_ids is None else [str(event_id) for event_id in body.event_ids]
        return Replayed(count=await dead_letters.replay(session, event_ids))

    return router
