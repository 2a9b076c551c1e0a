"""From a configuration to data, model and lists that fit together."""
