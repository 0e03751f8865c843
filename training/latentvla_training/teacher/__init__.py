"""The teacher: a Qwen2.5-VL that speaks latent actions; its training, evaluation and cache."""
