"""Reading rosbag2 recordings (MCAP or SQLite, any distro) without ROS, and naming what is wrong.

Messages stay serialised: the player hands the recorded CDR bytes straight to DDS. What this process
itself has to know (stamps, odometry, camera models) is decoded with the types stored in the bag.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from latentvla_ros.cli.errors import CommandError

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader

#: Where a bag keeps the rig of the vehicle it was recorded on.
RIG_FILE_NAME = "rig.yaml"
#: CDR's own 4 bytes, a stamp and the length of a frame_id.
_MIN_MESSAGE_BYTES = 16


@dataclass(frozen=True)
class BagTopic:
    """A recorded topic: name, type as ``package/msg/Name`` and number of messages."""

    name: str
    message_type: str
    count: int


@dataclass(frozen=True)
class BagMessage:
    """One recorded message: topic, time of recording (ns) and its CDR bytes, header included."""

    topic: str
    stamp_ns: int
    data: bytes


class BagFile:
    """A recording opened for reading; use it as a context manager.

    Args:
        path: folder of a rosbag2 recording, or its ``.mcap`` or ``.db3`` file.

    Attributes:
        topics: by name.
        start_ns, end_ns: times of recording; the end is just after the last message.

    Raises:
        CommandError: no such recording, or it cannot be read (on entering and while reading).
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._reader: AnyReader | None = None
        self.topics: dict[str, BagTopic] = {}
        self.start_ns = 0
        self.end_ns = 0

    @property
    def rig_path(self) -> Path:
        """Where the recording's own rig file belongs (it may be absent)."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return folder / RIG_FILE_NAME

    @property
    def duration_s(self) -> float:
        """Seconds between the first and the last message."""
        return max(self.end_ns - self.start_ns, 0) * 1e-9

    def __enter__(self) -> BagFile:
        # Imported here: rosbags costs 0.2 s, and `latentvla --help` must not pay it.
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore

        storage = self._storage()
        try:
            # SQLite bags before Iron carry no message definitions; the standard types are stable.
            reader = AnyReader([storage], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            reader.open()
            self._reader = reader
            self.topics = {
                name: BagTopic(name, info.msgtype or "mixed types", info.msgcount)
                for name, info in reader.topics.items()
            }
            self.start_ns, self.end_ns = reader.start_time, reader.end_time
        except PermissionError as error:
            raise CommandError(
                "bag-unreadable", f"{storage}: {error.strerror}", "check the file's permissions"
            ) from None
        except Exception as error:  # a parser of foreign bytes fails in many ways; all mean this
            raise _broken(self.path, error) from None
        if not any(topic.count for topic in self.topics.values()):
            self.__exit__(None, None, None)
            raise CommandError(
                "empty-bag", f"{self.path} holds no messages", "record it again, or give another"
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _storage(self) -> Path:
        """Return what rosbags opens: the folder, or its only storage file without metadata."""
        if not self.path.exists():
            raise CommandError(
                "no-such-bag",
                f"{self.path} does not exist",
                "give the folder of a rosbag2 recording or its .mcap or .db3 file",
            )
        if self.path.is_file() or (self.path / "metadata.yaml").exists():
            return self.path
        files = sorted([*self.path.glob("*.mcap"), *self.path.glob("*.db3")])
        if len(files) == 1:  # recording was interrupted before metadata.yaml was written
            return files[0]
        found = f"{len(files)} storage files" if files else "no .mcap or .db3 file"
        raise CommandError(
            "not-a-bag",
            f"{self.path} has no metadata.yaml and {found}",
            "give a rosbag2 folder, or run `ros2 bag reindex` on it",
        )

    @property
    def reader(self) -> AnyReader:
        """The open reader; raises RuntimeError outside the ``with`` block."""
        if self._reader is None:
            raise RuntimeError(f"bag {self.path} is not open")
        return self._reader

    def messages(
        self,
        topics: Collection[str],
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[BagMessage]:
        """Yield messages of ``topics`` as recorded, from ``start_ns`` to before ``end_ns``.

        Raises:
            CommandError: a record cannot be read, or is too short for the header that every message
                of a vehicle's sensors begins with.
        """
        connections = [c for c in self.reader.connections if c.topic in topics]
        if not connections:
            return
        source = self.reader.messages(connections, start=start_ns, stop=end_ns)
        while True:
            try:
                connection, stamp_ns, data = next(source)
            except StopIteration:
                return
            except Exception as error:  # as above: foreign bytes
                raise _broken(self.path, error) from None
            if len(data) < _MIN_MESSAGE_BYTES:
                raise CommandError(
                    "broken-message",
                    f"{self.path}: a message of {connection.topic} has {len(data)} bytes",
                    "check the bag with `ros2 bag info` and record it again",
                )
            yield BagMessage(connection.topic, stamp_ns, bytes(data))

    def decode(self, message: BagMessage) -> Any:
        """Return ``message`` as an object with the fields of its ROS type.

        Raises:
            CommandError: its bytes do not fit its type.
        """
        try:
            return self.reader.deserialize(message.data, self.topics[message.topic].message_type)
        except Exception as error:  # as above: foreign bytes
            raise CommandError(
                "broken-message",
                f"{self.path}: a message of {message.topic} at {message.stamp_ns} ns cannot be "
                f"decoded ({error})",
                "check the bag with `ros2 bag info` and record it again",
            ) from None

    def of_type(self, message_type: str) -> list[str]:
        """Return the names of the topics of ``message_type`` that hold messages, sorted."""
        return sorted(
            topic.name
            for topic in self.topics.values()
            if topic.message_type == message_type and topic.count
        )


def _broken(path: Path, error: Exception) -> CommandError:
    detail = str(error) or type(error).__name__
    return CommandError(
        "broken-bag",
        f"{path} cannot be read ({detail})",
        "check it with `ros2 bag info`; recover an MCAP with `mcap recover`",
    )
