"""Running trials on this machine's devices or on a cluster's."""
