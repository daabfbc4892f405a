"""Runs the probes, each in its own process, and turns what they found into a report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from embodied.doctor.finding import Finding, State
from embodied.doctor.probes import (
    CORE,
    GPU,
    INSTALL,
    NO_MUJOCO,
    PROCESSOR,
    RENDERING,
    RENDERING_MEND,
    SIMULATORS,
    SPACE,
    VIDEO,
)

PATIENCE = 120.0
"""Seconds after which a probe that says nothing counts as hanging."""
NEEDLESS = "not needed"
COLOURS = {"ok": "32", "missing": "33", "broken": "31", "note": "36"}
SECTIONS = {"packages": CORE, "processor": PROCESSOR, "gpu": GPU, "video": VIDEO, "space": SPACE}


def checkup() -> Iterator[Finding]:
    """All findings, in the order of the report.

    What only loads and tries runs two at a time; what is timed comes after, with the machine to itself.
    """
    quiet = ("packages", *INSTALL, "gpu", "video", "space")
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(quiet, pool.map(lambda probe: run(probe, core=probe == "packages"), quiet), strict=True))
    yield from found["packages"]
    yield from pictures()
    for simulator in INSTALL:
        yield from found[simulator]
    yield from run("processor")
    for probe in ("gpu", "video", "space"):
        yield from found[probe]


def pictures() -> Iterator[Finding]:
    """Every rendering backend, and whether what `MUJOCO_GL` asks for is one that works."""
    found = [finding for backend in RENDERING_MEND for finding in run("rendering", backend)]
    if all(finding.text == NO_MUJOCO for finding in found):
        yield Finding(RENDERING, "mujoco", "missing", "not installed", found[0].mend)
        return
    working = [finding.name for finding in found if finding.state == "ok"]
    for finding in found:
        needless = working and finding.state == "missing"
        yield replace(finding, mend=f"{NEEDLESS}; {finding.mend}") if needless else finding
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    if wanted and wanted not in working:
        mend = f"unset MUJOCO_GL, or export MUJOCO_GL={working[0]}" if working else RENDERING_MEND["egl"]
        yield Finding(RENDERING, "MUJOCO_GL", "broken", f"is {wanted}, which does not work", mend)
    elif working:
        chosen = wanted or working[0]
        yield Finding(RENDERING, "MUJOCO_GL", "ok", f"{'set' if wanted else 'unset'}: pictures are drawn with {chosen}")
    else:
        mend = f"{RENDERING_MEND['egl']}, or {RENDERING_MEND['osmesa']}"
        yield Finding(RENDERING, "MUJOCO_GL", "broken", "no backend works: tasks run from state only", mend)


def run(probe: str, argument: str = "", core: bool = False, patience: float = PATIENCE) -> list[Finding]:
    """One probe in its own process; a crash or a hang is a finding too."""
    words = [sys.executable, "-m", "embodied.doctor.probes", probe, *([argument] if argument else [])]
    section = RENDERING if probe == "rendering" else SECTIONS.get(probe, SIMULATORS)
    name = argument or probe
    start = time.monotonic()
    try:
        done = subprocess.run(
            words, env=_environment(probe, argument), capture_output=True, text=True, timeout=patience, check=False
        )
        output, status, errors = done.stdout, done.returncode, done.stderr
    except subprocess.TimeoutExpired as hung:
        output, status, errors = (hung.stdout or b"").decode(), None, ""
    findings, failure = _read(output)
    if status is None:
        problem = f"no answer in {time.monotonic() - start:.0f} s"
    elif status < 0:
        problem = f"crashed ({signal.Signals(-status).name})"
    elif status > 0:
        problem = (errors.strip().splitlines() or [f"ended with status {status}"])[-1][:120]
    elif failure is not None:
        return [*findings, _explained(section, name, probe, failure, core)]
    else:
        return findings
    return [*findings, Finding(section, name, "broken", problem, _mend(probe, argument), core)]


def _read(output: str) -> tuple[list[Finding], Mapping[str, str] | None]:
    findings, failure = [], None
    for line in output.splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # a library that prints
        if isinstance(record, dict) and "error" in record:
            failure = record
        elif isinstance(record, dict) and "section" in record:
            findings.append(Finding(**record))
    return findings, failure


def _explained(section: str, name: str, probe: str, failure: Mapping[str, str], core: bool) -> Finding:
    """A finding from the exception that a probe ended with."""
    error, module = failure["error"], failure["module"].split(".")[0]
    state: State = "broken"
    if probe == "rendering":
        absent = "NoneType" in error or "no attribute 'gl" in error or "no attribute 'egl" in error
        screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        if absent:
            state, error = "missing", "no such library"
        elif name == "glfw" and not screen:
            state, error = "missing", "there is no screen"
    elif module:
        state, error = "missing", "not installed" if module == name else f"needs {module}, which is not installed"
    return Finding(section, name, state, error, _mend(probe, name), core)


def _mend(probe: str, argument: str) -> str:
    if probe == "rendering":
        return RENDERING_MEND[argument]
    return INSTALL.get(probe, "make setup")


def _environment(probe: str, argument: str) -> dict[str, str]:
    environment = dict(os.environ)
    if probe == "rendering":
        environment.pop("PYOPENGL_PLATFORM", None)
        environment["MUJOCO_GL"] = argument
    else:
        environment["MUJOCO_GL"] = (
            "disabled"  # physics must not stumble over a broken driver; pictures have their own probe
        )
    return environment


def lines(findings: Sequence[Finding], colour: bool) -> Iterator[str]:
    """The report, aligned, a heading per section, a second line where there is something to do."""
    width = max((len(finding.name) for finding in findings), default=0)
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            yield ""
            yield f"\x1b[1m{section}\x1b[0m" if colour else section
        state = f"{finding.state:<8}"
        shown = f"\x1b[{COLOURS[finding.state]}m{state}\x1b[0m" if colour else state
        yield f"  {shown}{finding.name:<{width}}  {finding.text}"
        if finding.mend:
            yield f"  {'':<8}{'':<{width}}  -> {finding.mend}"


def verdict(findings: Sequence[Finding]) -> tuple[str, int]:
    """One closing line, and the exit status: 0 unless the core is broken."""
    ill = [finding.name for finding in findings if finding.core and finding.state not in ("ok", "note")]
    if ill:
        return f"The core does not work here: {', '.join(ill)}.", 1
    broken = [finding.name for finding in findings if finding.state == "broken"]
    missing = [f.name for f in findings if f.state == "missing" and not f.mend.startswith(NEEDLESS)]
    closing = "The core works here."
    for what, names in (("Broken", broken), ("Missing", missing)):
        closing += f" {what}: {', '.join(names)}." if names else ""
    return closing, 0
