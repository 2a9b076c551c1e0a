"""What a service is told while it runs, kept on the disk."""
