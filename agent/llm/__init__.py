"""The researcher that asks a language model: what it is told, what it answers, what it costs."""
