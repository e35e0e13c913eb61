"""`forward.py HOST PORT TARGET…`: connects whoever comes with the first of the target ports here that takes it."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Sequence
from contextlib import suppress

CHUNK_BYTES = 65_536


async def serve(host: str, port: int, targets: Sequence[int]) -> None:
    turn = itertools.count()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(turn)
        for number in range(len(targets)):
            with suppress(OSError):
                there = await asyncio.open_connection("127.0.0.1", targets[(first + number) % len(targets)])
                break
        else:
            writer.close()
            return
        ways = [asyncio.create_task(way) for way in (carry(reader, there[1]), carry(there[0], writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        writer.close()
        there[1].close()

    async with await asyncio.start_server(connected, host, port) as server:
        await server.serve_forever()


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), [int(port) for port in sys.argv[3:]]))
