"""Onboard half of LatentVLA: cameras and odometry in, trajectories out."""

__version__ = "0.1.0"
