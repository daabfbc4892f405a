"""Objects for worker processes to hold in tests."""

import os
import signal
import sys
import time
from pathlib import Path


class Echo:
    def __init__(self, problem=None):
        if problem:
            raise ValueError(problem)

    def echo(self, value):
        return value

    def pid(self):
        return os.getpid()

    def modules(self):
        return sorted(sys.modules)

    def environ(self, name):
        return os.environ.get(name)

    def interrupt(self):
        os.kill(os.getpid(), signal.SIGINT)
        return "still here"

    def fail(self):
        return {}["joint7"]

    def read(self, file):
        return Path(file).read_text()

    def sleep(self, seconds):
        time.sleep(seconds)
