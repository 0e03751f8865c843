"""SE(2) and SE(3) algebra, camera projection and rectification, trajectory kinematics."""
