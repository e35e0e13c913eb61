"""One page of a list."""

from __future__ import annotations

from typing import Generic, TypeVar

from .values import View

ItemT = TypeVar("ItemT")

PAGE_LIMIT_DEFAULT = 50
PAGE_LIMIT_MOST = 200


class Page(View, Generic[ItemT]):
    """Items in the order of their IDs, newest last; `next_cursor` is null on the last page."""

    items: list[ItemT]
    next_cursor: str | None = None
