"""What a check at the door has to say."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One sentence about a model; a doubt, or what was checked and found right.

    >>> print(Finding("no distribution of generate moves with z2", "z2"))
    no distribution of generate moves with z2
    """

    sentence: str
    variable: str = ""
    """that it is about; empty where it is about the model"""
    doubtful: bool = True

    def __str__(self) -> str:
        return self.sentence
