"""`python prepare.py` is `ar prepare`."""

import sys

from autoresearch.core.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["prepare", *sys.argv[1:]]))
