"""Training half of LatentVLA: makes the bundle that the car runs, and proves it."""

__version__ = "0.1.0"
