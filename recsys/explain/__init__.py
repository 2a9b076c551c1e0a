"""python -m recsys.explain: why a run recommends an item."""
