"""A worker behind a real ssh, to a server of its own on this machine, with keys made for the test."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import onnxruntime
import pytest
from made_workers import CONDITIONS, tiny_cases

from tfnas.bench import remote_bench as remote
from tfnas.bench.remote_bench import WorkerBench, WorkerWarning
from tfnas.core.errors import RunFailed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ssh(tmp_path_factory):
    """The words of an ssh command that reaches this machine; skips where no server can be started."""
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    if sshd is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh server on this machine: install openssh-server")
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "key.pub",
        "PidFile": "none",
        "PasswordAuthentication": "no",
        "UsePAM": "no",
        "StrictModes": "no",
        "PermitRootLogin": "prohibit-password",
    }
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # the server wants it, and a service would make it
    server = subprocess.Popen([sshd, "-D", "-E", folder / "log", "-f", folder / "config"])
    try:
        command = ["ssh", "-p", str(port), "-i", str(folder / "key"), "-o", "StrictHostKeyChecking=no"]
        command += ["-o", f"UserKnownHostsFile={folder / 'known'}", "-o", "LogLevel=ERROR"]
        command += ["-o", "IdentitiesOnly=yes", f"{getpass.getuser()}@127.0.0.1"]
        deadline = time.monotonic() + 20
        while subprocess.run([*command, "true"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"the ssh server cannot be used: {(folder / 'log').read_text()[-500:]}")
            time.sleep(0.2)
        yield command
    finally:
        server.terminate()
        server.wait()


def test_blocks_are_timed_through_ssh(ssh):
    bench = WorkerBench(shlex.join([*ssh, sys.executable, "-"]), CONDITIONS, tiny_cases()[1])
    assert bench.versions["onnxruntime"] == onnxruntime.__version__
    visits = list(bench.measure(tiny_cases()[0], [2, 0, 1, 0], 3))
    assert len(visits) == 4 and all(ms > 0 for visit in visits for ms in (*visit.own_ms, *visit.reference_ms))


@pytest.mark.parametrize(
    ("far", "what"),
    [
        (["no-such-python", "-"], "no python3 there.*not found"),
        ([], "exit status 64.*has started a shell"),
    ],
)
def test_commands_that_are_wrong_on_the_far_side(ssh, monkeypatch, far, what):
    monkeypatch.setattr(remote, "_PAUSE_S", 0.0)
    with pytest.warns(WorkerWarning, match=what), pytest.raises(RunFailed, match=what):
        WorkerBench(shlex.join([*ssh, *far]), CONDITIONS, tiny_cases()[1])


def test_an_ssh_that_does_not_come_through(ssh, monkeypatch):
    monkeypatch.setattr(remote, "_PAUSE_S", 0.0)
    closed = [*ssh, sys.executable, "-"]
    closed[2] = "1"  # a port that nothing listens on
    with pytest.warns(WorkerWarning), pytest.raises(RunFailed, match=r"ssh failed to connect.*refused"):
        WorkerBench(shlex.join(closed), CONDITIONS, tiny_cases()[1])
