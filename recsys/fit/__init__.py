"""python -m recsys.fit: trains and tests one run, or one for each seed."""
