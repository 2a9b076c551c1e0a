"""Recommending in turns: a state that critiques refine, lists, and a transcript of it all."""
