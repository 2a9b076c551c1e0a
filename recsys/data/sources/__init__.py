"""One file a data set or format: Config and load."""
