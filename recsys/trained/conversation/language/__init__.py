"""What the lines of a conversation mean."""
