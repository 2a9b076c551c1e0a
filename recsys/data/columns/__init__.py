"""Columns of tables as arrays: times, words, ids, ragged rows."""
