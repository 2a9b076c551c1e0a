"""python -m recsys.compress: a finished run made small, as a run of its own."""
