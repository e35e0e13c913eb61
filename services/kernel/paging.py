"""Keyset paging: a page is asked for by the last ID of the one before, so it costs the same at any depth."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query
from sqlalchemy import ColumnElement, Select
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.paging import PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MOST, Page

ViewT = TypeVar("ViewT")


@dataclass(frozen=True)
class PageRequest:
    """Which page, and how long."""

    after_id: int
    limit: int


def _page_request(
    cursor: Annotated[str, Query(pattern=r"^[0-9]{1,18}$", description="next_cursor of the page before")] = "0",
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT_MOST)] = PAGE_LIMIT_DEFAULT,
) -> PageRequest:
    return PageRequest(int(cursor), limit)


PageParam = Annotated[PageRequest, Depends(_page_request)]


async def page(
    session: AsyncSession,
    query: Select[Any],
    *,
    by: ColumnElement[int] | Any,
    asked: PageRequest,
    view: Callable[[Any], Awaitable[ViewT]],
) -> Page[ViewT]:
    """The page of `query`'s rows, in the order of the ID column `by`, each shown by `view`."""
    rows = (await session.execute(query.where(by > asked.after_id).order_by(by).limit(asked.limit + 1))).all()
    shown = rows[: asked.limit]
    items = [await view(row[0] if len(row) == 1 else row) for row in shown]
    more = len(rows) > asked.limit
    return Page(items=items, next_cursor=str(getattr(items[-1], "id")) if more else None)  # noqa: B009
