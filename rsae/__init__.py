"""Sparse autoencoders with trainable rational activations."""
