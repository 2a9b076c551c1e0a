"""What the ways to pretrain compute, loaded when one is built."""
