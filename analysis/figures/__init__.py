"""One file per figure: records of `analysis.load` -> a matplotlib `Figure`, or None with nothing to show."""
