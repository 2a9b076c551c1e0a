"""One file a tuning method: a function of a finished encoder."""
