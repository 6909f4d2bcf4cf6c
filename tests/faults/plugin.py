"""A pytest plugin, `-p tests.faults.plugin`, that plants one fault before the first module of hvae is imported.

The environment names the fault (`HVAE_FAULT`, see `Fault.key`; none for the library as it is) and a file for the
record of the session (`HVAE_FAULT_RECORD`). An import hook compiles the altered source in place of the file: nothing
on disk changes, and no byte code is kept.
"""

import json
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from tests.faults.faults import parse
from tests.faults.record import Failure, Record

FAULT, RECORD = "HVAE_FAULT", "HVAE_FAULT_RECORD"


class Planter(MetaPathFinder):
    """Finds one module, with other source."""

    def __init__(self, module: str, text: str) -> None:
        self.module, self.text, self.planted = module, text, False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None and spec.origin is not None
        spec.loader = _Altered(fullname, spec.origin, self)
        return spec


class _Altered(SourceFileLoader):
    def __init__(self, fullname: str, path: str, planter: Planter) -> None:
        super().__init__(fullname, path)
        self._planter = planter

    def get_code(self, fullname: str) -> CodeType:
        self._planter.planted = True
        return compile(self._planter.text, self.path, "exec", dont_inherit=True)


class Recorder:
    """What the session saw."""

    def __init__(self, planter: Planter | None, to: Path | None) -> None:
        self._planter, self._to = planter, to
        self._failures: list[Failure] = []
        self._n_passed = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._n_passed += report.passed and report.when == "call"

    def pytest_exception_interact(
        self,
        node: pytest.Item | pytest.Collector,
        call: pytest.CallInfo[object],
        report: pytest.TestReport | pytest.CollectReport,
    ) -> None:
        assert call.excinfo is not None
        self._failures.append(Failure(node.nodeid, str(report.when or "collect"), call.excinfo.typename))

    def pytest_sessionfinish(self) -> None:
        planted = None if self._planter is None else self._planter.planted
        if self._to is not None:
            self._to.write_text(json.dumps(Record(planted, self._n_passed, tuple(self._failures)).as_json()))


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Plants, before any conftest can import hvae. Raises UsageError for an unknown fault, or if it is too late."""
    key, to, planter = os.environ.get(FAULT), os.environ.get(RECORD), None
    if key:
        try:
            fault, size = parse(key)
            planter = Planter(fault.plant.module, fault.source(size))
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
        if any(name == "hvae" or name.startswith("hvae.") for name in sys.modules):
            raise pytest.UsageError(f"hvae was imported before the fault {key} could be planted.")
        sys.meta_path.insert(0, planter)
    early_config.pluginmanager.register(Recorder(planter, Path(to) if to else None))
