"""The pages lead somewhere: links, pictures, anchors, the list of pages, commands. What sphinx says: `make docs`."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvae.lab import experiment, options

REPO = Path(__file__).parents[1]
SITE = sorted(page for page in (REPO / "docs").rglob("*.md") if "_build" not in page.parts)
FRONT = [REPO / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [*FRONT, *SITE]

FENCE = re.compile(r"^(```+)([^\n]*)\n(.*?)^\1$", flags=re.DOTALL | re.MULTILINE)
CODE = re.compile(r"(`+)(.+?)\1")


def name(page: Path) -> str:
    return page.relative_to(REPO).as_posix()


def targets(text: str) -> list[str]:
    """What links and pictures point to, code left out; no addresses of the web."""
    prose = CODE.sub("", FENCE.sub("", text))
    found = re.findall(r"\]\(([^()\s]+)\)", prose) + re.findall(r"^\[[^]]+\]: +(\S+)", prose, flags=re.MULTILINE)
    return [target for target in found if not re.match(r"\w+:", target)]


def anchors(text: str) -> set[str]:
    """The anchors of the headings, by the rule that GitHub and MyST share; a heading that comes again has a number."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", FENCE.sub("", text), flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        again = next(n for n in range(len(found) + 1) if (f"{slug}-{n}" if n else slug) not in found)
        found.add(f"{slug}-{again}" if again else slug)
    return found


def dead(page: Path) -> list[str]:
    """Targets of a page that lead nowhere."""
    found = []
    for target in targets(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            found.append(target)
    return found


def listed(page: Path) -> Iterator[Path]:
    """The pages in the page's toctrees."""
    for _, kind, body in FENCE.findall(page.read_text(encoding="utf-8")):
        if kind == "{toctree}":
            for line in body.splitlines():
                entry = re.sub(r".*<(.+)>$", r"\1", line.strip())
                if entry and not entry.startswith(":"):
                    matches = sorted(page.parent.glob(f"{entry}.md"))
                    assert matches, f"{name(page)} lists {entry}, and there is no such page."
                    yield from (match.resolve() for match in matches)


def commands(text: str) -> Iterator[list[str]]:
    """The words after `hvae` of every command in code: in blocks (fenced or indented) and between backticks."""
    blocks = [body for _, kind, body in FENCE.findall(text) if kind in ("", "bash", "console", "sh")]
    prose = FENCE.sub("", text)
    blocks += re.findall(r"(?:^ {4}.*\n)+", prose, flags=re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [code for _, code in CODE.findall(prose.replace("\n", " "))]
    for line in lines:
        if re.match(r"\s*hvae ", line):
            yield shlex.split(line.partition(" > ")[0], comments=True)[1:]


def test_every_link_and_picture_leads_somewhere() -> None:
    assert {name(page): dead(page) for page in PAGES if dead(page)} == {}
    assert sum(len(targets(page.read_text(encoding="utf-8"))) for page in PAGES) > 20


def test_the_site_lists_every_page() -> None:
    found, todo = set[Path](), [REPO / "docs" / "index.md"]
    while todo:
        page = todo.pop()
        if page not in found:
            found.add(page)
            todo += listed(page)
    assert [name(page) for page in PAGES if page not in found] == []


def test_every_command_on_a_page_is_one() -> None:
    _, parsers = options.build()
    n_commands = 0
    for page in [*FRONT[:2], *SITE]:
        for words in commands(page.read_text(encoding="utf-8")):
            where = f"{name(page)}: hvae {' '.join(words)}"
            if words[0] in ("…", "..."):
                continue
            assert words[0] in parsers, where
            parsers[words[0]].refuse_unknown(words[1:])
            if words[0] == "run":
                presets = experiment.find(words[1]).PRESETS
                assert "--preset" not in words or words[words.index("--preset") + 1] in presets, where
            n_commands += 1
    assert n_commands > 10


def test_every_make_target_on_a_page_is_one() -> None:
    known = re.findall(r"^([\w-]+):", (REPO / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"(?:`|^ {4}|^)make ([\w-]+)(?=`|  )", text, flags=re.MULTILINE)
        assert [target for target in named if target not in known] == [], name(page)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a](nowhere.md)", ["nowhere.md"]),
        ("![a](nowhere.svg)", ["nowhere.svg"]),
        ("# One `two` (three)\n[a](#one-two-three) [b](#one)", ["#one"]),
        ("# One\n# One\n[a](#one-1) [b](#one-2)", ["#one-2"]),
        ("[a](https://example.org) `[b](nowhere.md)`\n```\n[c](nowhere.md)\n```\n", []),
    ],
)
def test_a_dead_link_is_seen(text: str, said: list[str], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    assert dead(page) == said


def test_commands_are_found_wherever_they_stand() -> None:
    indented = "    hvae train --a 1 \\\n        --b '[1, 2]'  # why\n"
    text = f"`hvae list`, `hvae run\ndepth`\n\n{indented}\n```bash\nhvae report x\n```\n"
    assert sorted(commands(text)) == [
        ["list"], ["report", "x"], ["run", "depth"], ["train", "--a", "1", "--b", "[1, 2]"],
    ]  # fmt: skip
