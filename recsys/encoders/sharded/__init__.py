"""An encoder whose weights are spread over processes (FSDP2)."""
