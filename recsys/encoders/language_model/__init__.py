"""Decoders with their language-model head, which answer a prompt with one word."""
