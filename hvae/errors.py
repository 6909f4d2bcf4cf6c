"""What hvae refuses. Every message is one sentence that names the thing, the value and the remedy."""


class ConfigError(ValueError):
    """Bad input of any kind, caught as what it is in Python.

    >>> issubclass(ConfigError, ValueError)
    True
    """


class MissingExtraError(ConfigError, ImportError):
    """A package that comes with an extra of hvae is not installed.

    >>> issubclass(MissingExtraError, ConfigError) and issubclass(MissingExtraError, ImportError)
    True
    """
