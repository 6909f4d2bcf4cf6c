"""The lock has every file with its hash and installs; the page of licences has every package."""

import importlib.util
import os
import re
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

REPO = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def supply() -> ModuleType:
    spec = importlib.util.spec_from_file_location("supply", REPO / "docs" / "supply.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lock_has_every_pin_with_its_hashes(supply: ModuleType) -> None:
    text = supply.LOCK.read_text(encoding="utf-8")
    entries = re.findall(
        r"^([\w.-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, flags=re.MULTILINE
    )
    assert {name: version for name, version, _ in entries} == {
        supply.canonical(name): version for name, version in supply.pins().items()
    }
    n_hashes = {name: hashes.count("--hash") for name, _, hashes in entries}
    assert n_hashes.pop("torch") == 2 and set(n_hashes.values()) == {1}, "torch of the index, and for CPUs"
    assert text == supply.HEAD + "".join(f"{name}=={version} \\\n{hashes}" for name, version, hashes in entries)


def test_the_page_of_licences_has_every_package(supply: ModuleType) -> None:
    text = supply.LICENCES.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", text.removeprefix(supply.PAGE), flags=re.MULTILINE)
    assert {name: version for name, version, _ in rows} == supply.pins()
    n_known = 0
    for name, version, licence in rows:
        assert licence.strip()
        try:
            installed = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:  # of the site alone
            continue
        if installed == version:
            n_known += 1
            assert supply.licence(name) == licence
    assert n_known > 20


def test_a_package_without_a_licence_is_said(supply: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    said = metadata.metadata("numpy")
    for key in ("License-Expression", "License", "Classifier"):
        del said[key]
    monkeypatch.setattr(supply.metadata, "metadata", lambda name: said)
    with pytest.raises(SystemExit, match="numpy does not name its licence; look it up"):
        supply.licence("numpy")


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11) or sys.platform != "linux" or os.uname().machine != "x86_64",
    reason="the lock is for CPython 3.11 on Linux x86-64",
)
def test_the_lock_installs_and_hvae_runs_on_it(supply: ModuleType, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    install = [python, "-m", "pip", "install", "-q", "--require-hashes", "--no-deps", "-r"]
    wrong = tmp_path / "wrong.lock"
    first, digest, _ = re.split(r"sha256:([0-9a-f]{64})", supply.LOCK.read_text(encoding="utf-8"), maxsplit=1)
    wrong.write_text(f"{first}sha256:{digest[::-1]}\n", encoding="utf-8")
    refused = subprocess.run([*install, str(wrong)], env=outside, capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and "DO NOT MATCH THE HASHES" in refused.stderr
    cpu = tmp_path / "cpu.txt"
    cpu.write_text(f"torch=={supply.pins()['torch']}+cpu\n", encoding="utf-8")
    install += [str(supply.LOCK)]
    alone = subprocess.run([*install, "-c", str(cpu)], env=outside, capture_output=True, check=False).returncode == 0
    if not alone:  # no build for CPUs is at hand
        subprocess.run(install, env=outside, check=True, capture_output=True)
    listed = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()), sep='\\n')"
    found = subprocess.run([python, "-c", listed], env=outside, check=True, capture_output=True, text=True).stdout
    versions = {supply.canonical(name): version.partition("+")[0] for name, version in re.findall(r"(.+)==(.+)", found)}
    pinned = {supply.canonical(name): version for name, version in supply.pins().items()}
    assert versions | pinned == versions and set(versions) - set(pinned) <= {"pip"}
    assert versions["torch"] == pinned["torch"]
    loads = (
        "import hvae, torch; hvae.diagnose" if alone else "import hvae.analysis.report"
    )  # the other torch needs more
    outside["PYTHONPATH"] = str(REPO)
    subprocess.run([python, "-c", loads], env=outside, cwd=tmp_path, check=True, capture_output=True)
