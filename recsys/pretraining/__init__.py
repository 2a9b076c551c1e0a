"""Axis: how an encoder is pretrained on item texts; a choice is a file."""
