"""python -m recsys.recommend: what a run suggests."""
