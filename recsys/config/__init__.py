"""The schema of a run, and how files and words become one."""
