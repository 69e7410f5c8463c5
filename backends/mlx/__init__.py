"""MLX: Apple silicon; on Linux the CPU build."""
