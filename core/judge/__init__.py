"""Keep or discard, by pure rules: measurements in, a verdict out."""
