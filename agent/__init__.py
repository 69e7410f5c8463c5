"""Researchers: what proposes the next edit of the train file. They run no trial."""

if __name__ == "agent":
    raise ImportError("import it as autoresearch.agent: `import agent` from the repository root makes a second copy")
