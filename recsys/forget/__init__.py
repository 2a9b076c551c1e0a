"""python -m recsys.forget: a user is deleted from what recsys has written."""
