"""python -m recsys.chat: a conversation about what to recommend."""
