"""Where figures go while a run trains: CSV, Weights & Biases, TensorBoard."""
