"""A finished run made small: fewer layers, shorter vectors, fewer bits; a run like any other."""
