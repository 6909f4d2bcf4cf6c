"""The one gate for what comes from outside: text, YAML, JSON, and arrays in the files of numpy.

Files may be damaged, cut short, huge, or made to harm. Every reader here has a largest size and depth, takes UTF-8
only, and runs nothing that it reads. What it refuses is one `ConfigError` with file, reason and remedy.
"""

from hvae.outside.arrays import MOST_UNPACKED as MOST_UNPACKED
from hvae.outside.arrays import check_archive as check_archive
from hvae.outside.arrays import check_array as check_array
from hvae.outside.arrays import load_arrays as load_arrays
from hvae.outside.plain import from_json as from_json
from hvae.outside.plain import from_yaml as from_yaml
from hvae.outside.plain import read_json as read_json
from hvae.outside.plain import read_yaml as read_yaml
from hvae.outside.text import MOST_LINE as MOST_LINE
from hvae.outside.text import check_text as check_text
from hvae.outside.text import read_bytes as read_bytes
from hvae.outside.text import read_line as read_line
from hvae.outside.text import read_text as read_text
from hvae.outside.text import reason as reason
from hvae.outside.text import sound as sound
