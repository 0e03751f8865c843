"""From a trained planner to a bundle: ONNX export, parity check, hashed folder."""
