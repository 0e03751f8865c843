"""The Fast DDS profile: which environment variable names it, and what a profile file asks for."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from latentvla_ros.cli.ros_distro import ros_distro

#: Fast DDS 3 (Kilted and later) reads the first and complains about the second, which Fast DDS 2
#: (Humble to Jazzy) reads alone.
VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
_OLD_DISTROS = ("humble", "iron", "jazzy")


def profile_variable() -> str:
    """Return the environment variable by which this ROS distribution finds a profile."""
    return VARIABLES[1 if ros_distro() in _OLD_DISTROS else 0]


def largest_segment(profile: Path) -> int:
    """Return the largest shared-memory segment (bytes) of a Fast DDS profile file; 0: none.

    Raises:
        OSError, ElementTree.ParseError: the file cannot be read, or is no XML.
    """
    texts = [
        (element.text or "").strip()
        for element in ElementTree.parse(profile).iter()
        if element.tag.rpartition("}")[2] == "segment_size"
    ]
    return max((int(text) for text in texts if text.isdigit()), default=0)
