"""python -m recsys.refresh: newer events, a new run, and which of both is in use."""
