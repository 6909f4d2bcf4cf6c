"""Training without files: R replicas of a model under one step, a stream of records that others store.

    entry      `fit`, which checks everything and gives the stream
    stream     `Fit`, step after step
    batches    whatever gives data -> step -> x ``[R, B, D]``
    replicas   R models -> weights with an axis R first, and back
    stage      what is trained from a step on
    step       loss, record and gradients of a step, for all replicas at once or one after another
    update     the gradients -> new weights: clipping, skipped steps, replicas that stop, averages
    adam       Adam and AdamW, with replicas that stand still
    health     which replicas are finite, and which skipped steps
    origin     the weight or net that the first number that is not finite came from
    record     what a step yields
    checks     what is refused before the first step

No file here knows a configuration or a run. The step waits for the device nowhere.
"""

from hvae.fitting.entry import fit
from hvae.fitting.health import Health
from hvae.fitting.record import Record, summary
from hvae.fitting.replicas import put
from hvae.fitting.stage import Stage
from hvae.fitting.step import Step, relaxed
from hvae.fitting.stream import Fit

__all__ = ["Fit", "Health", "Record", "Stage", "Step", "fit", "put", "relaxed", "summary"]
