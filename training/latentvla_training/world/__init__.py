"""Built-in driving world: SUMO roads and traffic, a privileged expert, ray-cast cameras."""
