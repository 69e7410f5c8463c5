"""One adapter a file, named like the library that it imports. Each names its class in `TRACKER`.

To add a tracker: its file here, its extra in pyproject.toml, and in tests/core/track a function that reads back
what the library was told. The choices of `--track` and the messages follow from the file's name.
"""
