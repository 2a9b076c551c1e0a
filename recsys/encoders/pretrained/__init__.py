"""Where a pretrained model lies, what its folder says, and how it is loaded."""
