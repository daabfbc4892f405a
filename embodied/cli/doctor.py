"""`embodied-doctor`: what works on this machine, found by doing it, and how to mend what doesn't.

Needs nothing but Python to run, so that it can say what is missing.
"""

from __future__ import annotations

import json
import os
import sys

from embodied.doctor.checkup import checkup, lines, verdict

USAGE = """usage: embodied-doctor [--json]

Tries what this project needs (packages, drawing without a screen, simulators, processor, GPU, video, space), each in a
process of its own, and says how to mend what does not work. Ends with status 0 unless the core is broken.

  --json   print the findings as JSON instead
"""


def main(words: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    words = sys.argv[1:] if words is None else words
    if {"-h", "--help"} & set(words):
        print(USAGE)
        return 0
    unknown = [word for word in words if word != "--json"]
    if unknown:
        sys.stderr.write(f"embodied-doctor: unknown argument '{unknown[0]}'; there is --json\n")
        return 2
    if sys.stderr.isatty():
        sys.stderr.write("trying everything, some 20 seconds ...")
        sys.stderr.flush()
    findings = list(checkup())
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    closing, status = verdict(findings)
    if "--json" in words:
        print(json.dumps({"core": status == 0, "findings": [finding.to_dict() for finding in findings]}, indent=2))
    else:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print("\n".join(lines(findings, colour)) + f"\n\n{closing}")
    return status
