"""TensorBoard's event files, scalars only.

A file is a sequence of records: length, its checksum, an `Event` message, its checksum. Written here because the
libraries that write them import PyTorch where it is installed, and queue every scalar to another thread.
Source: TensorFlow's record_writer.h and event.proto.
"""

import socket
import struct
import time
from ctypes import c_float
from pathlib import Path


def _table() -> tuple[int, ...]:
    """The remainders of all bytes by Castagnoli's polynomial, bits reversed."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


TABLE = _table()


def checksum(data: bytes) -> int:
    """CRC-32C of `data`, rotated by 15 bits and shifted by a constant, as records carry it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(n: int) -> bytes:
    """A whole number ≥ 0, seven bits a byte, the lowest first."""
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def field(number: int, content: bytes) -> bytes:
    """A field that holds text or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


class EventFile:
    """A new event file in `folder`. With `purge` TensorBoard forgets what earlier files say of that step and later."""

    def __init__(self, folder: Path, purge: int | None = None) -> None:
        name = f"events.out.tfevents.{time.time_ns() // 1000}.{socket.gethostname()}"
        self._file = open(folder / name, "wb")  # noqa: SIM115 (closed by `close`)
        self._record(0, field(3, b"brain.Event:2"))
        if purge is not None:
            self._record(purge, field(7, b"\x08\x01"))  # SessionLog.START

    def write(self, scalars: dict[str, float], step: int) -> None:
        """All scalars of one step, as one record, there at once for whoever watches; beyond float32 they are ±∞."""
        values = [
            field(1, field(1, name.encode()) + b"\x15" + struct.pack("<f", c_float(x).value))
            for name, x in scalars.items()
        ]
        self._record(step, field(5, b"".join(values)))

    def _record(self, step: int, what: bytes) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + b"\x10" + varint(step) + what
        length = struct.pack("<Q", len(event))
        checks = [struct.pack("<I", checksum(data)) for data in (length, event)]
        self._file.write(length + checks[0] + event + checks[1])
        self._file.flush()

    def close(self) -> None:
        """No more."""
        self._file.close()
