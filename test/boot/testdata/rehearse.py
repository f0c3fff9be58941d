"""Runs the script of a rehearsal with machines of the lab in place of virtual ones.

    rehearse.py SCRIPT DATA

DATA is JSON: {"rehearsal": what the script knows, "nics": {HOST: interface}}. The program boot is on PATH.
"""

import json
import subprocess
import sys
import time
from contextlib import contextmanager


class Machine:
    """What the script uses of a machine of NixOS's test driver."""

    def __init__(self, name, nic):
        self.name, self.nic = name, nic

    def start(self):
        for words in (["start", self.name, self.nic], ["image", self.name]):
            subprocess.run(["boot", *words], check=True)

    def execute(self, command):
        done = subprocess.run(["boot", "do", self.name, command], capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def succeed(self, command):
        status, out, messages = self.execute(command)
        if status != 0:
            raise RuntimeError(f"{self.name}: {command}: {status}\n{out}{messages}")
        return out

    def wait_until_succeeds(self, command, timeout=900):
        end = time.monotonic() + timeout
        while True:
            status, out, messages = self.execute(command)
            if status == 0:
                return out
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name}: {command}: {status}\n{out}{messages}")
            time.sleep(0.5)


@contextmanager
def subtest(name):
    began = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)


script, data = sys.argv[1:]
with open(data) as file:
    given = json.load(file)
with open(script) as file:
    # names that the test of templates/rehearse/default.nix gives it
    exec(
        compile("from typing import Any\n" + file.read(), script, "exec"),
        {
            "rehearsal": given["rehearsal"],
            "machines": [Machine(name, nic) for name, nic in given["nics"].items()],
            "subtest": subtest,
        },
    )
