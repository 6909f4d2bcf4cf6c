"""From run directories to tables, figures and one self-contained page.

Reads arrays, never a model: no file here imports torch, so everything redraws in seconds.

    load      a run directory, a page's kept arrays or a saved `hvae.diagnosis.Diagnosis` -> a `LoadedRun`
    samples   what seeds gave of one quantity -> the interval of its mean, over seeds and images or over seeds only
    claims    a statement, its measure and its margin -> supported, not supported or undecided
    study     the runs of one experiment, with its question and its claims
    style     palette, sizes and reproducible SVG
    figures/  one file per figure: records -> Figure
    tables/   verdicts and likelihoods: records -> tables, CSV
    report    report.html, and what the terminal shows
    diagnosed a diagnosis by itself: text with the answer last, a notebook's cell, single figures, one page
    results   a page to keep; `keep` says what of the runs stays with it, `kept` and `packed` how it is written

Legend: R replicas (seeds of one configuration), L latent layers (z1 touches x), D units, K samples.
Every number is in nats unless its name says otherwise; an interval is (low, middle, high).
"""
