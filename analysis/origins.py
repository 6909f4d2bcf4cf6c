"""Where the numbers come from: the sessions that made the runs and the other measurements."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any


def sessions(provenance: Sequence[Sequence[Mapping[str, Any]]]) -> list[tuple[dict[str, str], int]]:
    """Different origins of the numbers, and how many runs or parts share each.

    "begun" has the first and the last beginning. "took" is the sum of the times of all, also of those that ran at the
    same time; it is left out unless all were timed.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    own = ("time", "seconds")
    for entries in provenance:
        for session in entries:
            key = json.dumps({name: value for name, value in session.items() if name not in own}, sort_keys=True)
            groups.setdefault(key, []).append(session)
    found = []
    for sessions in groups.values():
        times = sorted(str(session.get("time", "")) for session in sessions)
        shown = {name: _origin(value) for name, value in sessions[0].items() if name not in own}
        if all("seconds" in session for session in sessions):
            shown["took"] = f"{sum(session['seconds'] for session in sessions) / 60:.1f} min"
        shown["begun"] = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
        found.append((shown, len(sessions)))
    return found


def _origin(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return shlex.join(map(str, value)) if isinstance(value, list) else str(value)
