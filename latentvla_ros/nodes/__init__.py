"""ROS 2 nodes: the only room where rclpy and message packages are imported."""
