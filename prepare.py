"""`python prepare.py` is `ar prepare`."""

import sys

from autoresearch.core.cli.entry import main

if __name__ == "__main__":
    sys.argv.insert(1, "prepare")
    main()
