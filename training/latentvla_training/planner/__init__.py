"""Training, baselines and evaluation of the student planner."""
