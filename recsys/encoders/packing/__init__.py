"""Texts of a micro-batch one behind the other, in place of padding."""
