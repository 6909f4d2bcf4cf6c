"""One file per question: docstring = the question and its source; configs(preset) = the runs; claims = what must hold.

    PRESETS       the names of the presets, the quickest first
    configs       preset -> label -> RunConfig, in the order of display
    panels        title -> labels of the runs that share a panel of a figure (optional)
    baselines     label of a run -> label of the run that it is compared with (optional)
    MEASUREMENTS  preset -> word of `hvae evaluate --likelihood` -> its budget, for every run (optional)
    measure       further measurements, part by part (optional)
    NEEDS         module of `hvae.extras` that `measure` needs -> what for (optional)
    claims        statements of the source, each with a margin fixed before the runs (optional)

Each also runs as a script: `python -m hvae.experiments.depth --preset demo`.
A long experiment is a folder, with its claims in `claims` and its figures in `curves` or `figures`.
"""
