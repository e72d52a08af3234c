"""What a CUDA machine comes to: make gpu."""
