"""Keep or discard: noise and decision."""
