"""A real name server on loopback: which addresses a name has is changed while others ask."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType
from typing import Self

_ADDRESS, _INTERNET, _ANSWERS, _NO_SUCH_NAME = 1, 1, 0x8580, 0x8583
_TTL_SECONDS = 60


class NameServer:
    """Answers for IPv4 addresses (RFC 1035); `names` may be changed at any time, `asked` holds what was asked."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            packet, asker = self._socket.recvfrom(4096)
            if not packet:
                return
            self._socket.sendto(self._answer(packet), asker)

    def _answer(self, packet: bytes) -> bytes:
        labels, at = [], 12
        while length := packet[at]:
            labels.append(packet[at + 1 : at + 1 + length].decode())
            at += 1 + length
        name = ".".join(labels)
        self.asked.append(name)
        addresses = self.names.get(name, [])
        flags = _ANSWERS if addresses else _NO_SUCH_NAME
        head = packet[:2] + struct.pack(">HHHHH", flags, 1, len(addresses), 0, 0)
        records = b"".join(
            struct.pack(">HHHLH4s", 0xC00C, _ADDRESS, _INTERNET, _TTL_SECONDS, 4, socket.inet_aton(address))
            for address in addresses
        )
        return head + packet[12 : at + 5] + records
