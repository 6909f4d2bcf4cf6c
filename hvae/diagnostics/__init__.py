"""What one asks of a stack's layers, each answer per datum so that it carries its doubt.

Reading order: `draws` (q-traces of n images), `rates` (what a layer costs), `information` (what it
carries), `units` (which units are active), `usage` (whether the decoder reads it), `verdict`.
"""
