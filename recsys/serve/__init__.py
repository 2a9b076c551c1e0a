"""python -m recsys.serve: recommendations over HTTP."""
