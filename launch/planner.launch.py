"""Start the planner and the gate on a vehicle or beside a bag.

    ros2 launch latentvla_ros planner.launch.py rig:=FILE odometry:=/localization/odometry

The rig file says which topic each camera is on; the remaps are made from it. Nothing touches the
DDS set-up: the shipped Fast DDS profile (config/fastdds.xml) belongs in the environment of the
process that publishes the images. `fastdds_profile:=FILE` sets it for our nodes too, which only raw
images need.
"""

from __future__ import annotations

from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    TimerAction,
)
from launch.events import matches_action
from launch.launch_context import LaunchContext
from launch.launch_description import LaunchDescription
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from latentvla_ros.contract import ContractError
from latentvla_ros.data import data_path
from latentvla_ros.nodes.remaps import rig_remaps
from latentvla_ros.sensing.rig_file import load_rig

WORLD_RIG = Path(__file__).resolve().parents[1] / "config" / "rig" / "world.yaml"
ARGUMENTS = (
    ("rig", str(WORLD_RIG), "rig file of the vehicle; default: that of the built-in world"),
    ("bundle", "nano", "name of a shipped bundle, or a bundle's folder"),
    ("params", str(data_path("planner.param.yaml")), "parameter file of both nodes"),
    ("namespace", "", "namespace of both nodes"),
    ("use_sim_time", "false", "take the time from /clock"),
    ("autostart", "true", "configure and activate the planner"),
    ("odometry", "/localization/odometry", "topic of nav_msgs/Odometry"),
    ("command", "/planning/driving_command", "topic of latentvla_msgs/DrivingCommand"),
    ("route", "/planning/route", "topic of nav_msgs/Path, with command_source: route"),
    ("fastdds_profile", "", "Fast DDS profile for our nodes; see config/fastdds.xml"),
    ("log_level", "info", "of both nodes"),
)


#: Activation is asked for again after so long, in s, while the bundle is being loaded.
RETRY_S = 0.5


def _truth(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise RuntimeError(f"launch argument {name}: found {text!r}, expected true or false")
    return text.lower() in ("true", "1")


def _nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    try:
        rig = load_rig(value["rig"])
    except ContractError as error:
        raise RuntimeError(f"launch argument rig: {error}") from None
    sim_time = _truth("use_sim_time", value["use_sim_time"])
    if not Path(value["params"]).is_file():
        raise RuntimeError(f"launch argument params: found {value['params']!r}, expected a file")

    planner = LifecycleNode(
        package="latentvla_ros",
        executable="planner_node",
        name="planner_node",
        namespace=value["namespace"],
        output="screen",
        parameters=[
            value["params"],
            {
                "rig": str(Path(value["rig"]).resolve()),
                "bundle": value["bundle"],
                "use_sim_time": sim_time,
            },
        ],
        remappings=[
            *rig_remaps(rig),
            ("~/input/odometry", value["odometry"]),
            ("~/input/command", value["command"]),
            ("~/input/route", value["route"]),
        ],
        arguments=["--ros-args", "--log-level", value["log_level"]],
    )
    gate = Node(
        package="latentvla_ros",
        executable="gate",
        name="gate",
        namespace=value["namespace"],
        output="screen",
        parameters=[value["params"], {"use_sim_time": sim_time}],
        remappings=[
            ("~/input/trajectory", "planner_node/output/trajectory"),
            ("~/input/odometry", value["odometry"]),
        ],
        arguments=["--ros-args", "--log-level", value["log_level"]],
    )
    entities: list[LaunchDescriptionEntity] = []
    if value["fastdds_profile"]:
        entities += [
            SetEnvironmentVariable(name, value["fastdds_profile"])
            for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
        ]
    if _truth("autostart", value["autostart"]):
        entities += _autostart(planner)
    return [*entities, planner, gate]


def _autostart(planner: LifecycleNode) -> list[LaunchDescriptionEntity]:
    """Configure at once; activate when configured, and again while the bundle is being loaded."""

    def change(transition: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(
                lifecycle_node_matcher=matches_action(planner), transition_id=transition
            )
        )

    return [
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=planner,
                start_state=start,
                goal_state="inactive",
                entities=[
                    TimerAction(period=RETRY_S, actions=[change(Transition.TRANSITION_ACTIVATE)])
                ],
            )
        )
        for start in ("configuring", "activating")
    ] + [change(Transition.TRANSITION_CONFIGURE)]


def generate_launch_description() -> LaunchDescription:
    """Return what ``ros2 launch`` runs."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS
            ),
            OpaqueFunction(function=_nodes),
        ]
    )
