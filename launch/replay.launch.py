"""Play a recording with ``ros2 bag play`` to the planner and the gate, on simulated time.

    ros2 launch latentvla_ros replay.launch.py bag:=FOLDER

The recording's own rig.yaml is used unless ``rig:=`` gives another; /clock is published at 200 Hz;
the player, which is what publishes the images, gets the shipped Fast DDS profile. Playing starts
when the planner is active, and everything ends with the recording. Where rosbag2 is not installed,
``latentvla replay FOLDER`` does the same.
"""

from __future__ import annotations

from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.launch_context import LaunchContext
from launch.launch_description import LaunchDescription
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition

from latentvla_ros.data import data_path

ARGUMENTS = (
    ("bag", "", "folder of a rosbag2 recording (required)"),
    ("rig", "", "rig file; empty: rig.yaml in the recording's folder"),
    ("rate", "1.0", "times the recorded pace"),
    ("bundle", "nano", "name of a shipped bundle, or a bundle's folder"),
    ("params", str(data_path("planner.param.yaml")), "parameter file of both nodes"),
    ("namespace", "", "namespace of both nodes"),
    ("odometry", "/localization/odometry", "recorded topic of nav_msgs/Odometry"),
    ("command", "/planning/driving_command", "recorded topic of latentvla_msgs/DrivingCommand"),
    ("route", "/planning/route", "recorded topic of nav_msgs/Path"),
    ("log_level", "info", "of both nodes"),
)
CLOCK_HZ = 200
_PASSED_ON = ("bundle", "params", "namespace", "odometry", "command", "route", "log_level")


def _replay(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    if not value["bag"]:
        raise RuntimeError("launch argument bag: found nothing, expected bag:=/path/to/recording")
    bag = Path(value["bag"])
    if not bag.exists():
        raise RuntimeError(f"launch argument bag: found {str(bag)!r}, expected a recording")
    rig = Path(value["rig"]) if value["rig"] else (bag if bag.is_dir() else bag.parent) / "rig.yaml"
    if not rig.is_file():
        raise RuntimeError(f"the recording carries no rig file ({rig}): give rig:=FILE")
    profile = str(data_path("fastdds.xml"))
    player = ExecuteProcess(
        cmd=["ros2", "bag", "play", str(bag), "--rate", value["rate"], "--clock", str(CLOCK_HZ)],
        additional_env={
            "FASTDDS_DEFAULT_PROFILES_FILE": profile,
            "FASTRTPS_DEFAULT_PROFILES_FILE": profile,
        },
        output="screen",
    )
    planner = Path(__file__).with_name("planner.launch.py")
    return [
        RegisterEventHandler(OnStateTransition(goal_state="active", entities=[player])),
        RegisterEventHandler(
            OnProcessExit(target_action=player, on_exit=[Shutdown(reason="the recording is over")])
        ),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(planner)),
            launch_arguments=[
                ("rig", str(rig)),
                ("use_sim_time", "true"),
                *((name, value[name]) for name in _PASSED_ON),
            ],
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return what ``ros2 launch`` runs."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS
            ),
            OpaqueFunction(function=_replay),
        ]
    )
