"""The world as a ROS 2 peer: the only room of training that knows rclpy, nodes and their tools."""
