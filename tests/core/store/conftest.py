"""The store's tests share the loop's workspace."""
