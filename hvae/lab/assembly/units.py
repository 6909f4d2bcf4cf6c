"""The units of a table's columns: who is standardised inside the model, and what is said where nobody is.

Other units of the columns change a Gaussian observation of learned or network variance by a constant, and so no
verdict, if the nets see z-scores. A fixed or shared variance means other things in other units. Pixels and the columns
of a data set with a name have the units that they were published with.
"""

from hvae.data import Dataset
from hvae.data.names import CATALOGUE
from hvae.diagnosis.pixels import Pixels
from hvae.errors import ConfigError
from hvae.lab.config import ModelConfig

FAR_APART = 100.0
"""ratio of deviations from which columns are said to differ in scale"""


def standardises(config: ModelConfig, data: Dataset) -> bool:
    """Whether `model.standardise` suits, where it is left out: for a user's table of real columns."""
    return config.standardisable and data.kind == "real" and _is_table(data)


def check_units(config: ModelConfig, data: Dataset) -> None:
    """Refuse to standardise what is no table of a user's own."""
    if config.standardise and not _is_table(data):
        what = "is a data set with a name" if data.name in CATALOGUE else "holds images"
        raise ConfigError(
            f"model.standardise is true, but {data.name} {what}, with units that all its columns share; "
            "leave it out, or give false."
        )


def units_remark(config: ModelConfig, data: Dataset) -> str:
    """A sentence where the columns of a user's table are taken as they are, and should perhaps not be; else empty.

    They differ in scale by more than `FAR_APART`, or lie between 0 and 1, where grey levels do.
    """
    if config.observation != "gaussian" or config.standardise or data.kind == "binary" or not _is_table(data):
        return ""
    deviation = data.train.double().std(0, unbiased=False)
    moves = deviation > 0
    small, large = int(deviation.where(moves, deviation.max()).argmin()), int(deviation.argmax())
    far_apart = bool(moves.any()) and float(deviation[large] / deviation[small]) > FAR_APART
    if far_apart and not config.standardisable:
        times = f"{deviation[large] / deviation[small]:.2g} times"
        return (
            f"Columns differ in scale: column {large} varies {times} as much as column {small}, which hardly counts "
            f"where model.observation_variance is {config.observation_variance}; write columns as (x - x.mean(0)) / "
            "x.std(0), or use learned, which takes them as z-scores, where no column is constant."
        )
    if config.standardisable and (far_apart or data.kind == "grey"):
        why = "differ in scale" if far_apart else "lie between 0 and 1, as grey levels do"
        return f"Columns {why}, and are taken as they are; --model.standardise true takes each as z-scores."
    return ""


def _is_table(data: Dataset) -> bool:
    return Pixels.of(data.image_shape) is None and data.name not in CATALOGUE
