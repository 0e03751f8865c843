"""Scenes, their shards, and the adapters that make them (world, rosbag2)."""
