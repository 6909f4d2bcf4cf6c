"""Many runs made complete, by processes of this machine or by a cluster.

Every task is "make this run complete" (`hvae.lab.completion`), as `hvae complete` does. It may be repeated at any time,
so a worker that is killed costs only what it had not saved, and the same command repairs what is missing.
"""

from hvae.lab.sweep.sweeping import sweep as sweep
