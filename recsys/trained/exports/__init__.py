"""What a finished run leaves for other systems: files that no code of this one reads."""
