"""Load a language model, feed it unpadded texts, pool its states."""
