"""PyTorch: an H100 box, other NVIDIA cards, and plain CPU."""
