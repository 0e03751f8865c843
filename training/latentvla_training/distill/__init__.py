"""From the teacher's states to a planner that a car can run, and what each step is worth."""
