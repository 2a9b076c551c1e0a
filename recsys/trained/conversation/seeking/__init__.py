"""Conversations with a scripted seeker, who looks for an item that is known."""
