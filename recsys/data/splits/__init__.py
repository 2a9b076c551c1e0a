"""Which event is history, target or test, and what can be had when."""
