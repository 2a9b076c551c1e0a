"""Ranks cases and says what the ranks are worth, over all and by slices."""
