"""The stamp of a serialised message, read and replaced without decoding the message; no ROS import.

Works for every type whose first field is a ``std_msgs/Header``.
"""

from __future__ import annotations

import struct


def header_stamp_ns(data: bytes) -> int:
    """Return the stamp (ns) of a serialised message that starts with a ``std_msgs/Header``.

    CDR: 4 bytes (the second tells the byte order), then sec int32, nanosec uint32.
    """
    sec, nanosec = struct.unpack_from(_stamp_format(data), data, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


def with_header_stamp(data: bytes, stamp_ns: int) -> bytes:
    """Return ``data`` with the stamp of its leading header replaced (ns since the epoch)."""
    stamp = struct.pack(_stamp_format(data), *divmod(stamp_ns, 1_000_000_000))
    return data[:4] + stamp + data[12:]


def header_frame_id(data: bytes) -> str:
    """Return the frame_id of the leading header; raises ValueError where it does not fit."""
    start, end = 16, _header_end(data)
    return data[start:end].rstrip(b"\0").decode(errors="replace")


def byte_after_header(data: bytes) -> int:
    """Return the uint8 that follows the leading header, e.g. the command of a DrivingCommand.

    Bags before Iron hold no message definitions, so that a reader knows the standard types alone.

    Raises:
        ValueError: the message is too short for what it says.
    """
    return data[_header_end(data)]


def _header_end(data: bytes) -> int:
    """Return the index of the byte after the leading header, which must be there."""
    order = "<" if _stamp_format(data)[0] == "<" else ">"
    if len(data) < 16:
        raise ValueError(f"a serialised frame_id has at least 4 bytes, found {len(data) - 12}")
    (length,) = struct.unpack_from(f"{order}I", data, 12)
    if 16 + length >= len(data):
        raise ValueError(f"frame_id of {length} bytes in a message of {len(data)}")
    return 16 + int(length)


def _stamp_format(data: bytes) -> str:
    if len(data) < 12:
        raise ValueError(f"a serialised header has at least 12 bytes, found {len(data)}")
    return "<iI" if data[1] & 1 else ">iI"
