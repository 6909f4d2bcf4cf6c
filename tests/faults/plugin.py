"""A pytest plugin, `-p tests.faults.plugin`, that plants one fault before the module that it alters is imported.

The environment names the fault (`HVAE_FAULT`, see `Fault.key`; none for the library as it is) and a file for the
record of the session (`HVAE_FAULT_RECORD`). An import hook compiles the altered syntax tree in place of the file:
nothing on disk changes, and no byte code is kept.
"""

import ast
import json
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from tests.faults.fault import find_spec
from tests.faults.faults import parse
from tests.faults.record import Failure, Record

FAULT, RECORD = "HVAE_FAULT", "HVAE_FAULT_RECORD"


class Planter(MetaPathFinder):
    """Finds one module, with another syntax tree."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        self.module, self.tree, self.planted = module, tree, False

    @staticmethod
    def of(key: str) -> "Planter":
        """For the fault of that `Fault.key`. Raises ValueError if it is unknown, does not fit, or comes too late."""
        fault, size = parse(key)
        planter = Planter(fault.plant.module, fault.tree(size))
        if planter.module in sys.modules:
            raise ValueError(f"{planter.module} was imported before the fault {key} could be planted.")
        return planter

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        spec = find_spec(fullname, path, without=self)
        assert spec is not None and spec.origin is not None
        spec.loader = _Altered(fullname, spec.origin, self)
        return spec


class _Altered(SourceFileLoader):
    def __init__(self, fullname: str, path: str, planter: Planter) -> None:
        super().__init__(fullname, path)
        self._planter = planter

    def get_code(self, fullname: str) -> CodeType:
        self._planter.planted = True
        return compile(self._planter.tree, self.path, "exec", dont_inherit=True)


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
    """Plants, before any conftest can import the module. Raises UsageError where `Planter.of` refuses."""
    key, to, planter = os.environ.get(FAULT), os.environ.get(RECORD), None
    if key:
        try:
            planter = Planter.of(key)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
        sys.meta_path.insert(0, planter)
    early_config.pluginmanager.register(Recorder(planter, Path(to) if to else None))
