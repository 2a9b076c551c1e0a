"""python -m recsys.export: a finished run as files for other systems."""
