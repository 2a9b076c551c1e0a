"""What each word of the texts behind a score adds to it."""
