"""Files in the forms that multi-modal datasets come in, and conversations made easy to compare."""

import json
from pathlib import Path


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def conversation(sample):
    """`[(role, [text, or <the picture's name>])]`."""
    return [
        (m["role"], [p["text"] if p["type"] == "text" else f"<{Path(p[p['type']]).name}>" for p in m["content"]])
        for m in sample.messages
    ]
