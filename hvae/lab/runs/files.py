"""Files that are replaced whole, as every room of the laboratory writes them (`hvae.diagnosis.files`)."""

from hvae.diagnosis.files import clean as clean
from hvae.diagnosis.files import load_arrays as load_arrays
from hvae.diagnosis.files import packed_arrays as packed_arrays
from hvae.diagnosis.files import save_arrays as save_arrays
from hvae.diagnosis.files import write_atomically as write_atomically
