"""One file per figure: records of `hvae.analysis.load` -> a matplotlib `Figure`, or None with nothing to show."""
