"""One file per question: docstring = the question and its source; configs(preset) = the runs; claims = what must hold.

    PRESETS    the names of the presets, the quickest first
    configs    preset -> label -> RunConfig, in the order in which they are shown
    panels     title -> labels of the runs that share a panel of a figure (optional)
    baselines  label of a run -> label of the run that it is held against (optional)
    KEPT       names of the figures that carry the message, which the page of results keeps (optional: all)
    PROBES     preset -> word of `hvae evaluate --likelihood` -> its effort: measured of every run (optional)
    measure    what is measured beside the runs, part by part (optional)
    claims     what the source says, each with a margin fixed before the runs (optional)

Each also runs as a script: `python -m experiments.depth --preset demo`.
Claims and figures of a long one stand in `claims` and `curves`, under its own name.
"""
