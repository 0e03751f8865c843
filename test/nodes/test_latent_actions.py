"""What RViz and the overlay say of latent actions: their names, where the bundle has them."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_bundle import NAMES

from latentvla_ros.contract import Plan
from latentvla_ros.geometry.trajectory import constant_turn_rate, resample

pytestmark = pytest.mark.ros


def plan() -> Plan:
    logits = np.zeros((12, 16), np.float32)
    logits[np.arange(12), np.arange(12)] = np.log(15.0)  # 15 of 30: a half
    knots = constant_turn_rate(6.0, 0.1)[None].astype(np.float32)
    return Plan.from_outputs(knots, np.ones(1, np.float32), logits, 5 * 10**9)


def test_a_text_marker_over_the_vehicle() -> None:
    from visualization_msgs.msg import Marker

    from latentvla_ros.nodes.markers import plan_markers

    trajectory = resample(constant_turn_rate(6.0, 0.1), 6.0)
    where = np.array([3.0, -2.0, 0.5])
    plain = plan_markers(plan(), trajectory, where, "odom").markers
    *rest, words = plan_markers(plan(), trajectory, where, "odom", NAMES).markers
    assert rest == plain and (words.ns, words.type) == ("latent_actions", Marker.TEXT_VIEW_FACING)
    assert words.text.splitlines()[1] == "1-2 s: p0 c4 50 %, p1 c5 50 %, p2 c6 50 %, p3 c7 50 %"
    assert (words.pose.position.x, words.pose.position.y) == (3.0, -2.0)
    assert words.pose.position.z > 2.0 and words.header.frame_id == "odom"


def test_words_over_the_top_of_the_overlay() -> None:
    from latentvla_ros.nodes.overlay import draw_latent_actions

    picture = np.full((384, 768, 3), 150, np.uint8)
    draw_latent_actions(picture, plan(), NAMES)
    assert (picture[70:] == 150).all()
    assert picture[:60].min() == 50 and picture[:60].max() > 220
    assert (picture[:60, 500:] == 50).all()  # the words end before the picture does
