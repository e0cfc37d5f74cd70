"""A Debian system that systemd-nspawn boots; its changes are in memory and end with it."""

import ctypes
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 60


class Machine:
    def __init__(self, root):
        self.root = root

    def __enter__(self):
        self.console = open(f"{self.root}.console", "wb")
        self.nspawn = subprocess.Popen(
            ["systemd-nspawn", "--directory", self.root, "--volatile=overlay", "--boot"]
            + ["--register=no", "--keep-unit", "--private-network", "--console=pipe", "--quiet"],
            stdin=subprocess.DEVNULL,
            stdout=self.console,
            stderr=subprocess.STDOUT,
        )
        self.leader = eventually("PID 1 runs", self._leader)
        eventually("the system has booted", self._has_booted)
        # From here on this thread and its children are on the machine's network.
        with open(f"/proc/{self.leader}/ns/net", "rb") as network:
            if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        return self

    def __exit__(self, *_):
        # SIGTERM has nspawn power the system off; a second one ends it at once.
        self.nspawn.terminate()
        try:
            self.nspawn.wait(20)
        except subprocess.TimeoutExpired:
            self.nspawn.kill()
            self.nspawn.wait()

    def _leader(self):
        if self.nspawn.poll() is not None:
            sys.exit(f"systemd-nspawn ended: {Path(self.console.name).read_text()}")
        path = f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children"
        children = Path(path).read_text().split()
        # nspawn's own helper comes first; PID 1 is the child whose PID in its namespace is 1.
        for child in children:
            try:
                status = Path(f"/proc/{child}/status").read_text()
            except FileNotFoundError:
                continue
            if any(l.startswith("NSpid:") and l.split()[-1] == "1" for l in status.splitlines()):
                return child
        return None

    def _has_booted(self):
        state = self.try_run("systemctl is-system-running").stdout.strip()
        return state in ("running", "degraded")

    def command(self, command):
        enter = ["nsenter", "--target", self.leader, "--all", "--root", "--wd", "env", "-i"]
        path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        return enter + [path, "DEBIAN_FRONTEND=noninteractive", "bash", "-c", command]

    def try_run(self, command, timeout=120, **more):
        return subprocess.run(
            self.command(command), capture_output=True, text=True, timeout=timeout, **more
        )

    def run(self, command, **more):
        """The output of a command that must succeed."""
        done = self.try_run(command, **more)
        if done.returncode != 0:
            output = f"{done.stdout}{done.stderr}"
            raise AssertionError(f"{command}: exit {done.returncode}\n{output}\n{self.journal()}")
        return done.stdout

    def write(self, path, text):
        self.run(f"mkdir -p $(dirname {path}) && cat > {path}", input=text)

    def copy(self, file, path):
        with open(file, "rb") as source:
            command = self.command(f"cat > {path}")
            subprocess.run(command, stdin=source, check=True)

    def journal(self, unit="gatepost*"):
        done = self.try_run(f"journalctl --no-pager --lines=40 -u '{unit}'")
        return done.stdout

    def start(self, command):
        """Starts a command that goes on."""
        return subprocess.Popen(
            self.command(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def eventually(name, check, patience=PATIENCE):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {patience} s: {name}")
