"""Far sides that go wrong: a small program in place of the worker, which answers every request as it is told."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from tiny import tiny_space

from tfnas.bench.benches import reference_case
from tfnas.bench.benchmark_cases import block_case
from tfnas.bench.remote_bench import WorkerBench
from tfnas.bench.worker_messages import Payload
from tfnas.latency.table_contents import Conditions

CONDITIONS = Conditions(runtime="onnxruntime")

FAKE = r"""
import ast, json, os, subprocess, sys, time

folder, modes = sys.argv[1], sys.argv[2:]
out = sys.stdout


def say(document):
    out.write(document if isinstance(document, str) else json.dumps(document) + "\n")
    out.flush()


def hang():
    child = subprocess.Popen(["sleep", "60"])
    with open(os.path.join(folder, "pids"), "a") as file:
        file.write("%d %d " % (os.getpid(), child.pid))
    time.sleep(60)


if modes[0] == "deaf":
    hang()
text = sys.stdin.read()
marker = 'names["serve"]('
request = json.loads("".join(ast.literal_eval(text[text.rindex(marker) + len(marker) :].strip()[:-1])))
order = request["order"]
mode = "ok"
if order:
    log = os.path.join(folder, "requests")
    with open(log, "a") as file:
        file.write(json.dumps(order) + "\n")
    with open(log) as file:
        number = len(file.readlines()) - 1
    mode = modes[min(number, len(modes) - 1)]
if modes[0].startswith("greeting:"):
    mode = modes[0].partition(":")[2]
hello = {"tfnas_worker": 1, "python": "3.9.2", "numpy": "1.2", "onnxruntime": "1.1", "device": "Toy", "cores": 2}
if mode == "die_at_once":
    sys.stderr.write("no \x1b[31mcolours\nbad luck\n")
    sys.exit(3)
if mode == "hang_at_once":
    hang()
if mode == "banner":
    say("Welcome to Toy\n{}\n[1, 2]\n\n" + "*" * 70 + "\nlast login: never")
    say("\n")
if mode == "endless_banner":
    for _ in range(2000):
        say("all work and no play makes a worker a dull worker\n")
if mode == "other_device":
    hello["device"] = "Another Toy"
if mode == "other_protocol":
    hello["tfnas_worker"] = 2
if mode == "escape":
    hello["device"] = "\x1b[31mToy"
if mode == "flood":
    for _ in range(64):
        sys.stderr.write("w" * 65536 + "\n")
say(hello)
with open(os.path.join(folder, "known.json")) as file:
    known = json.load(file)
if order:
    say({"ready": known[request["reference"]["onnx"]][1]})
seen = set()
for number, index in enumerate(order):
    place, output = known[request["blocks"][index]["onnx"]]
    own_ms = [1e-3 * (place + 1)] * request["calls"]
    document = {"visit": number, "own_ms": own_ms, "reference_ms": [5e-4] * request["calls"]}
    if index not in seen:
        document["output"] = output
    seen.add(index)
    if number == 2:
        if mode == "die":
            sys.stderr.write("Killed by a toy\n")
            sys.stderr.flush()
            os._exit(1)
        if mode == "hang":
            hang()
        if mode == "endless":
            for _ in range(100):
                say("x" * 65536)
            hang()
        if mode == "half":
            say('{"visit": 2, "own_')
            sys.exit(0)
        if mode == "bytes":
            sys.stdout.buffer.write(b'{"visit": "\xff"}\n')
        if mode == "refused":
            say({"refused": "Fail: unsupported IR version"})
            sys.exit(1)
        if mode == "skip":
            continue
        if mode == "twice":
            say(document)
        if mode.startswith("say:"):
            say(mode[4:] + "\n")
        elif mode.startswith("own:"):
            values = [mode[4:]] + [repr(value) for value in own_ms[1:]]
            say(json.dumps(document).replace(json.dumps(own_ms), "[" + ", ".join(values) + "]", 1) + "\n")
            continue
        elif mode.startswith("change:"):
            document.update(json.loads(mode[7:]))
        elif mode == "other_block":
            document["output"] = dict(output, values=[value * 1.5 for value in output["values"]])
    say(document)
if mode != "no_done":
    say({"done": len(order) + (mode == "miscounted")})
if mode == "more":
    say({"visit": 99})
if mode == "late_hang":
    hang()
sys.exit(7 if mode == "nonzero" else 0)
"""


def tiny_cases():
    """Three blocks of the tiny space, and its reference."""
    space = tiny_space()
    place = space.blocks[-1]
    found = [
        block_case(space.block(place, operation, width), place.input_size)
        for operation in space.operations
        for width in list(space.widths(place, operation))[:2]
    ]
    return found[:3], reference_case(space)


def fake_command(folder, *modes):
    """The command of a fake that answers its n-th request for visits in the n-th mode, and later ones in the last."""
    cases, reference = tiny_cases()
    payloads = [Payload.of(case, CONDITIONS, 0) for case in (*cases, reference)]
    known = {payload.document["onnx"]: [place, payload.output] for place, payload in enumerate(payloads)}
    (folder / "known.json").write_text(json.dumps(known))
    (folder / "fake.py").write_text(FAKE)
    return shlex.join([sys.executable, "-I", "-S", str(folder / "fake.py"), str(folder), *modes])


def fake_bench(folder, *modes, **settings):
    return WorkerBench(fake_command(folder, *modes), CONDITIONS, tiny_cases()[1], **settings)


def requests_of(folder):
    """The orders that were asked for, one for each request."""
    return [json.loads(line) for line in (folder / "requests").read_text().splitlines()]


def fates(folder):
    """Whether the processes that a hanging fake has noted are gone."""
    found = []
    for pid in (folder / "pids").read_text().split():
        try:
            found.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        except (FileNotFoundError, ProcessLookupError):
            found.append(True)
    return found
