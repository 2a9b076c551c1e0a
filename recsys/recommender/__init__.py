"""The LightningModule that every architecture is, and what trains in it."""
