"""What hvae refuses. Every message is one sentence that names the thing, the value and the remedy."""


class ConfigError(ValueError):
    """Bad input of any kind."""


class ForeignError(ConfigError):
    """A file of another run.

    >>> raise ForeignError("gap.npz is of the run 1d01e9c2; move it there.")
    Traceback (most recent call last):
    ...
    hvae.errors.ForeignError: gap.npz is of the run 1d01e9c2; move it there.
    """


class NotLoadableError(ConfigError):
    """A sound file that cannot be loaded here: by this version, on this device, in this memory.

    >>> raise NotLoadableError("manifest.json has schema 2, and this hvae reads up to 1; update hvae.")
    Traceback (most recent call last):
    ...
    hvae.errors.NotLoadableError: manifest.json has schema 2, and this hvae reads up to 1; update hvae.
    """


class NotMeasuredError(ValueError):
    """A quantity that this model cannot give; the message is one sentence that says why.

    Whoever measures (`hvae.measuring`) leaves NaN in its place and keeps the sentence.

    >>> raise NotMeasuredError("Cauchy has no mean")
    Traceback (most recent call last):
    ...
    hvae.errors.NotMeasuredError: Cauchy has no mean
    """


class TrainingError(RuntimeError):
    """A training in which no replica is finite any more; the message says where, and what to try.

    >>> raise TrainingError("z1 is not finite from step 3 on; lower the learning rate.")
    Traceback (most recent call last):
    ...
    hvae.errors.TrainingError: z1 is not finite from step 3 on; lower the learning rate.
    """


class MissingExtraError(ConfigError, ImportError):
    """A package that comes with an extra of hvae is not installed."""


class HeldError(ConfigError):
    """Another process holds what this one would write; the message names the holder.

    >>> raise HeldError("runs/own/a is held by process 9 on node1 since 12:00; wait for it or stop it.")
    Traceback (most recent call last):
    ...
    hvae.errors.HeldError: runs/own/a is held by process 9 on node1 since 12:00; wait for it or stop it.
    """
