"""The rational sparse autoencoder paper (arXiv 2606.14990): its theorems, its figures, a table of its primitives."""
