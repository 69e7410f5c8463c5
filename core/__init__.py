"""The neutral core: data, clock, score, decision, ledger. It knows no framework and no researcher."""

if __name__ == "core":
    raise ImportError("import it as autoresearch.core: `import core` from the repository root makes a second copy")
