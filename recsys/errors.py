"""The two mistakes a user can make; both are printed as one sentence, without a traceback."""


class RecsysError(Exception):
    """Base of the errors that a user can mend; the message is one sentence with the remedy."""


class ConfigError(RecsysError):
    """A wrong key, choice, value or combination in the configuration."""


class DataError(RecsysError):
    """A file, row or column that cannot be used as it is."""
