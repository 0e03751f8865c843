"""Recipes, the training loop, checkpoints; the same on a CPU and on GPUs (accelerate)."""
