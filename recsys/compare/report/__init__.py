"""How a comparison is shown: terminal, Markdown, LaTeX, HTML."""
