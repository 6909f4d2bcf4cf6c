"""What one asks of a stack's layers, each answer per datum so that it carries its doubt.

Reading order: `draws` (q-traces of n images), `rates` (what a layer costs), `units` (which units are
active), `usage` (whether the decoder reads it), `information` (what it carries: `nested` bottom-up,
`conditional` top-down, `bounds` for their intervals), `verdict`.
"""
