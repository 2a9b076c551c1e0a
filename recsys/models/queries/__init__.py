"""What is learned of training queries without a step of training: neighbours, and their words."""
