"""What the process stands on: files, locks, signals, ranks, clocks, memory; knows no model."""
