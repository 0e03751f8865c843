"""The student planner in pure torch; imported by the torch backend and by training only."""
