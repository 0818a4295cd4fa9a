"""Websocket frames (RFC 6455, section 5), as a client sends and receives them; no extensions."""

from __future__ import annotations

import secrets
import struct
from typing import NamedTuple

from flatwater.gateway.error import ResponseError, ResponseSizeError

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_CONTINUATION = 0
_MAX_CONTROL_BYTES = 125
_SENDABLE = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})


class Message(NamedTuple):
    """A whole message, or a control frame."""

    opcode: int
    data: bytes


def write(opcode: int, data: bytes) -> bytes:
    """One frame, masked."""
    size = len(data)
    if size <= _MAX_CONTROL_BYTES:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 2**16:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    key = secrets.token_bytes(4)
    return head + key + masked(data, key)


def write_close(code: int, reason: str = "") -> bytes:
    """A close frame; without a code when it is one that no frame may carry (section 7.4.1)."""
    if code not in _SENDABLE and not 3000 <= code <= 4999:
        return write(CLOSE, b"")
    text = reason.encode()[: _MAX_CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return write(CLOSE, struct.pack("!H", code) + text)


def read_close(data: bytes) -> tuple[int, str]:
    """Code and reason of a close frame; 1005 when it has none. Raises ResponseError."""
    if not data:
        return 1005, ""
    code = int.from_bytes(data[:2], "big")
    if len(data) < 2 or (code not in _SENDABLE and not 3000 <= code <= 4999):
        raise ResponseError("a close frame without a code that may be there")
    return code, text(data[2:])


def text(data: bytes) -> str:
    """Raises ResponseError when it is no UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ResponseError("a text that is no UTF-8") from None


def masked(data: bytes, key: bytes) -> bytes:
    size = len(data)
    mask = key * (size // 4 + 1)
    return (int.from_bytes(data, "big") ^ int.from_bytes(mask[:size], "big")).to_bytes(size, "big")


class Frames:
    """Takes bytes of a server, gives its messages. Raises ResponseError for what no server may send, and
    ResponseSizeError when a message is larger than ``max_message_bytes``."""

    def __init__(self, max_message_bytes: int) -> None:
        self._max_bytes = max_message_bytes
        self._buffer = bytearray()
        self._parts = bytearray()
        self._opcode = 0  # of the message that is being received; 0: none

    def feed(self, data: bytes) -> list[Message]:
        self._buffer += data
        found: list[Message] = []
        while (frame := self._frame()) is not None:
            final, opcode, payload = frame
            if opcode >= CLOSE:
                if not final or len(payload) > _MAX_CONTROL_BYTES or opcode > PONG:
                    raise ResponseError("a control frame that is none")
                found.append(Message(opcode, payload))
            elif (message := self._join(final, opcode, payload)) is not None:
                found.append(message)
        return found

    def _frame(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, size = buffer[0], buffer[1]
        if first & 0x70 or size & 0x80:
            raise ResponseError("a frame with reserved bits, or masked")
        start = 2
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start], "big")
        if size + len(self._parts) > self._max_bytes:
            raise ResponseSizeError(f"a message is larger than {self._max_bytes} bytes")
        if len(buffer) < start + size:
            return None
        payload = bytes(buffer[start : start + size])
        del buffer[: start + size]
        return bool(first & 0x80), first & 0x0F, payload

    def _join(self, final: bool, opcode: int, payload: bytes) -> Message | None:
        if (opcode == _CONTINUATION) != bool(self._opcode) or opcode > BINARY:
            raise ResponseError("a fragment out of turn")
        if opcode and final:
            return Message(opcode, payload)
        self._opcode = opcode or self._opcode
        self._parts += payload
        if not final:
            return None
        message = Message(self._opcode, bytes(self._parts))
        self._parts.clear()
        self._opcode = 0
        return message
