"""What a frozen part of an encoder gives, computed once and stored."""
