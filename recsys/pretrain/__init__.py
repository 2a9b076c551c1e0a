"""python -m recsys.pretrain: trains an encoder on item texts, without a recommender."""
