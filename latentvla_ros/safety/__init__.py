"""What stands between a plan and a vehicle: checks, health, and trajectories that stop it."""
