"""Text to tokens to batches: corpora, tokenizers, shards, packing, the feed."""
