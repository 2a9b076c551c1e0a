"""python -m recsys.clean: what takes up room, and how it is given back."""
