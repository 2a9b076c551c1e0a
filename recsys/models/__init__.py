"""What the architectures compute: one file a model; what can be asked of it lies with the axis."""
