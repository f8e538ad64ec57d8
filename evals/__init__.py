"""An evaluation of sparse autoencoders that is honest about sparsity and always shows the control."""
