"""One file or one folder for each question: its docstring is the question and its source.

    PRESETS       names of the presets, the quickest first
    configs       preset -> label -> RunConfig, in the order in which they are shown
    panels        title -> labels of the runs that share a panel of a figure (optional)
    baselines     label of a run -> label of the run that it is held against (optional)
    KEPT          names of the figures that the page of results keeps (optional: all)
    MEASUREMENTS  preset -> word of `hvae evaluate --likelihood` -> its budget: measured of every run (optional)
    measure       what is measured apart from the runs, part by part, on their device (optional)
    ON_CPU        parts of it that stay on the CPU (optional)
    sections      what the experiment adds to the report, as a function (optional)
    NEEDS         module of `hvae.extras` that `measure` takes -> what for (optional)
    claims        what the source says, each with a margin fixed before the runs (optional)

A paper has PAPER, numbers, curves, grids and NEED_GPU as well. Each also runs as a script, as
`python -m hvae.experiments.depth --preset demo`. In a folder, `__init__`, `claims`, `curves`, `tables`, `figures` and
`section` import no torch; the other files measure. What two experiments need stands in `shared`.

`times.json` has what a preset took: name -> preset -> minutes of one core, all runs and measurements together. It
stands by itself, since the files of an experiment are part of the digest of what it measured.
"""
