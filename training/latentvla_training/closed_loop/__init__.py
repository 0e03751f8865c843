"""Closed loop: drivers in the built-in world, what they infringe, scores of routes."""
