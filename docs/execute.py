"""Run the pages of this folder: `python docs/execute.py docs/own-vae.md` runs its Python, block after block, and puts
what each block prints into the text block below it.

With `--check` nothing is written: the page must run, and print where it shows that it prints. What is printed may
differ from one machine to another, since a training is chaotic: in numbers, and in a verdict near a threshold.
"""

import argparse
import contextlib
import io
import os
import re
import sys
from pathlib import Path

BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<shown>.*?)```\n)?", re.DOTALL)


def executed(page: str, name: str = "page") -> str:
    """The page with the output of every block that prints."""
    space: dict[str, object] = {"__name__": "__page__"}
    os.environ["COLUMNS"] = "80"

    def run(match: re.Match[str]) -> str:
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(match["code"], name, "exec"), space)
        printed = "\n".join(line.rstrip() for line in heard.getvalue().splitlines())
        shown = f"\n```text\n{printed}\n```\n" if printed.strip() else ""
        return f"```python\n{match['code']}```\n{shown}"

    return BLOCK.sub(run, page)


def prints(page: str) -> list[bool]:
    """Which blocks of a page print."""
    return [match["shown"] is not None for match in BLOCK.finditer(page)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page has gone stale")
    options = parser.parse_args()
    for path in options.pages:
        page = path.read_text(encoding="utf-8")
        found = executed(page, str(path))
        if not options.check:
            path.write_text(found, encoding="utf-8")
        elif prints(page) != prints(found):
            sys.exit(f"{path} shows other blocks than those that print; run `python docs/execute.py {path}`.")


if __name__ == "__main__":
    main()
