"""What can be written after `hvae`: commands, their options, their help."""

from hvae.lab.options.commands import build as build
from hvae.lab.options.commands import parse as parse
