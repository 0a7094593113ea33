"""One claim a file: `run` measures, `check` compares with theory, `draw` shows both."""
