"""How files become columns: tables, JSON lines, templates of texts, MIND."""
