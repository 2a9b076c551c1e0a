"""Several processes that train together: who they are, and what each of them holds."""
