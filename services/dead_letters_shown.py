"""Messages that do not get through, as an operator reads them at a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from medperf_contracts.values import CONTROL_BUT_NEWLINE

CAUSE_CHARACTERS_SHOWN = 400


def message_lines(message: Mapping[str, Any]) -> list[str]:
    """A message with its cause and what comes next."""
    where = message["consumer"] or f"outbox of {message['service']}"
    return [
        f"{message['event_id']}  {message['state']}  {where}  {message['topic']}  {message['subject'] or '?'}",
        *_told(message),
    ]


def action_lines(action: Mapping[str, Any]) -> list[str]:
    """What an operator did, to what, and why."""
    where = action["consumer"] or f"outbox of {action['service']}"
    return [
        f"{action['event_id']}  {action['action']}  {where}  {action['topic']}  {action['subject'] or '?'}",
        f"    {_time(action['at'])} by {action['by'] or '?'}: {printable(action['reason']) or 'no reason given'}",
        f"    it was {action['state']} after {_attempts(action)}, cause: {printable(action['cause'])}",
    ]


def story_lines(event_id: str, stories: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """All that the services know of an event, in the order in which it went through them."""
    envelope = next((story["envelope"] for story in stories.values() if story["envelope"]), None)
    yield f"Event {event_id}"
    if envelope is None:
        yield "    no service has it in a form that can be read"
    else:
        yield f"    {envelope['topic']}  {envelope['subject']}, version {envelope['version']}"
        yield f"    from {envelope['source']}, {_time(envelope['time'])}"
        if envelope["traceparent"]:
            yield f"    trace: {envelope['traceparent']}"
        if envelope["data"] is not None:
            yield f"    data: {printable(json.dumps(envelope['data']), most=None)}"
    for service, story in stories.items():
        if story["recorded"]:
            left = story["recorded"]["left_at"]
            became = f"left {_time(left)}" if left else "has not left"
            yield f"Recorded by {service} {_time(story['recorded']['at'])}, {became}"
        for handled in story["handled"]:
            yield f"Had its effect in {handled['consumer']} {_time(handled['at'])}"
    for service, story in stories.items():
        for message in story["messages"]:
            yield f"Stuck at {message['consumer'] or f'outbox of {service}'}: {message['state']}"
            yield from _told(message)
    for service, story in stories.items():
        for action in story["actions"]:
            yield from action_lines({"service": service} | dict(action))


def printable(text: str, *, most: int | None = CAUSE_CHARACTERS_SHOWN) -> str:
    """One line that paints no terminal."""
    line = CONTROL_BUT_NEWLINE.sub("?", " ".join(text.split()))
    return line if most is None or len(line) <= most else f"{line[:most]}…"


def _told(message: Mapping[str, Any]) -> list[str]:
    next_step = f"mend the cause, then: medperf-server dead-letters replay {message['event_id']}"
    if message["next_try"]:
        next_step = f"tried again at {_time(message['next_try'])}"
    return [
        f"    {_attempts(message)} since {_time(message['since'])}",
        f"    cause: {printable(message['cause'])}",
        f"    next:  {next_step}",
    ]


def _attempts(message: Mapping[str, Any]) -> str:
    return "1 attempt" if message["attempts"] == 1 else f"{message['attempts']} attempts"


def _time(instant: str) -> str:
    return f"{instant[:19].replace('T', ' ')} UTC"
