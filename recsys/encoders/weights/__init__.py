"""How an encoder's weights are held: their precision, and codes in their place."""
