"""Latent actions: inverse and forward dynamics with a codebook, in two disentangling stages."""
