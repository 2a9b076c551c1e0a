"""Modules that parameter-efficient tuning puts into an encoder."""
