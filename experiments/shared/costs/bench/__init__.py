"""What `hvae` costs beside a plain implementation, Pyro, JAX, pythae and the matrix products alone.

`make bench`, or `python -m hvae.experiments.shared.costs.bench`, measures and writes the tables of
`docs/performance.md`.
All contenders of a row have the same weights, data, batch, K and float32. They run in turn in one process, on one core,
and CPU time is counted: other work on the machine slows all of them alike, so ratios are to be read. Before anything is
timed their log-weights of the same draws must agree. A contender that is not installed is left out, and said.

    stacks      shapes of the rows, and their weights as arrays
    hvae_, plain, pyro_, jax_, pythae_, floor    one contender each: its log-weights, a training step, L_K
    clock       contenders in turn, CPU time
    rows        the rows of the table
    page        the page
"""
