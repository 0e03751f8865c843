"""From a recording's topics to the streams that the player publishes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from latentvla_ros.cli.bag_file import BagFile, BagMessage
from latentvla_ros.cli.replay_inputs import (
    CAMERA_INFO_TYPE,
    COMMAND_TYPE,
    IMAGE_TYPES,
    ODOMETRY_TYPE,
    ROUTE_TYPE,
    ReplayInputs,
)
from latentvla_ros.nodes.cdr_header import header_stamp_ns

if TYPE_CHECKING:
    from latentvla_ros.nodes.replay_player import Stream, TimedMessage

#: Messages read ahead, so that opening the next chunk of a bag never delays a message.
_READ_AHEAD = 256
#: A message is recorded within this time of its stamp, unless the two are of different clocks, ns.
_LATEST_RECEIPT_NS = 2_000_000_000


def streams_of(inputs: ReplayInputs) -> list[Stream]:
    """Return the streams of a replay: images as reliable as the rig says, the rest reliable."""
    from latentvla_ros.nodes.replay_player import Stream

    streams: list[Stream] = []
    for camera in inputs.cameras:
        streams.append(
            Stream(
                camera.topic,
                IMAGE_TYPES[camera.message_type],
                reliable=camera.reliability == "reliable",
                depth=4,
                slot=camera.slot,
                time_offset_ns=round(camera.time_offset_s * 1e9),
            )
        )
        if camera.model is None and camera.camera_info_topic:
            streams.append(Stream(camera.camera_info_topic, CAMERA_INFO_TYPE))
    streams.append(Stream(inputs.odometry, ODOMETRY_TYPE, depth=100))
    if inputs.command:
        streams.append(Stream(inputs.command, COMMAND_TYPE, latched=True))
    elif inputs.route:
        streams.append(Stream(inputs.route, ROUTE_TYPE, latched=True))
    return streams


def stamp_shift_ns(bag: BagFile, inputs: ReplayInputs) -> int:
    """Return what to add to times of recording to get the time that the messages are stamped in.

    0 in an ordinary bag. A bag recorded from a simulation or from another replay is stamped in a
    time that has nothing to do with when it was recorded; the nodes' clock has to be that time.
    """
    shifts = []
    for message in bag.messages([inputs.cameras[0].topic]):
        shifts.append(header_stamp_ns(message.data) - message.stamp_ns)
        if len(shifts) == 10:
            break
    newest = max(shifts)
    return 0 if not shifts or -_LATEST_RECEIPT_NS <= newest <= 0 else newest


def timed_messages(
    bag: BagFile, inputs: ReplayInputs, start_ns: int, end_ns: int, shift_ns: int = 0
) -> Iterator[TimedMessage]:
    """Yield what to play: the part of the recording, after what still held when it starts.

    The last command or route before ``start_ns`` is played first, as a late subscriber of a latched
    topic would get it.

    Args:
        start_ns, end_ns: times of recording; ``shift_ns``: as ``stamp_shift_ns``.
    """
    from latentvla_ros.nodes.replay_player import TimedMessage

    topics = [stream.topic for stream in streams_of(inputs)]
    latched = inputs.command or inputs.route
    if latched and start_ns > bag.start_ns:
        held: BagMessage | None = None
        for message in bag.messages([latched], end_ns=start_ns):
            held = message
        if held is not None:
            yield TimedMessage(
                start_ns + shift_ns, held.topic, header_stamp_ns(held.data), held.data
            )
    for message in read_ahead(bag.path, topics, start_ns, end_ns):
        due_ns = message.stamp_ns + shift_ns
        yield TimedMessage(due_ns, message.topic, header_stamp_ns(message.data), message.data)


def opened(messages: Iterator[TimedMessage]) -> Iterator[TimedMessage]:
    """Return ``messages`` with the bag opened and the first of them read, which takes a while."""
    head = list(islice(messages, 1))
    return chain(head, messages)


def read_ahead(
    path: Path, topics: Collection[str], start_ns: int, end_ns: int
) -> Iterator[BagMessage]:
    """Yield messages of a bag, read by a thread that is up to ``_READ_AHEAD`` of them ahead.

    The thread opens the bag for itself: an SQLite connection belongs to one thread.

    Raises:
        CommandError: as ``BagFile``.
    """
    waiting: queue.Queue[BagMessage | BaseException | None] = queue.Queue(_READ_AHEAD)
    stopped = threading.Event()

    def hand_over(entry: BagMessage | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            with BagFile(path) as bag:
                for message in bag.messages(topics, start_ns, end_ns):
                    if not hand_over(message):
                        return
            hand_over(None)
        except Exception as error:  # raised again in the caller's thread
            hand_over(error)

    thread = threading.Thread(target=read, name="bag-reader", daemon=True)
    thread.start()
    try:
        while (entry := waiting.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry
    finally:
        stopped.set()
        thread.join(timeout=2.0)
