"""Lists for many users: read, ranked in batches and written in parts."""
