"""`make bench-peers`: the way from Kafka to S3, ours beside others, in one run on one machine, with what each has stored compared.

    bench.py RECORDS    writes docs/BENCHMARKS.md

Every peer is measured ROUNDS times, all of them in each round. The peers' jobs lie beside this file, written as their users write them.
"""

import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import compare
import report
import servers
from measure import Cost, Failed, adopt_orphans, run, spawn

ROUNDS = int(os.environ.get("ROUNDS", "3"))
EVENT_ROUNDS = 12
# Events that a process takes one after the other when it has its turn, as a function does with a backlog.
IN_A_ROW = 5
TOOLS = "target/tools"
RELEASE = "target/release"
SCRATCH = "target/bench-peers"
PYTHON = sys.executable
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
HERE = os.path.dirname(os.path.abspath(__file__))
DOCUMENT = "docs/BENCHMARKS.md"
# Offsets of a micro-batch of Spark's: two objects, one a core.
SPARK_TRIGGER = "400000"
SPARK_GC = "Parallel GC"

# Commands that print Markdown of their own, each under its heading.
OTHERS = [
    ("What one full event costs, in one process", [f"{RELEASE}/bench"]),
]


@dataclass
class Peer:
    """`start(way, form)` measures one run and returns costs by the name of their row and the bucket's prefix with what was stored."""

    name: str
    start: callable
    missing: str = ""


class Way:
    """What all peers are given: the records on Kafka, a bucket, and the rows that must come of it."""

    def __init__(self, records: int):
        self.records = records
        self.number = 0
        self.kafka = self.store = None

    def open(self) -> None:
        say(f"producing {self.records:,} records")
        lines = subprocess.run([f"{RELEASE}/bench", "people", str(self.records)], check=True, stdout=subprocess.PIPE).stdout
        self.json_bytes = len(lines) - self.records
        self.kafka = servers.Kafka(TOOLS, f"{SCRATCH}/kafka")
        self.store = servers.Store(TOOLS, f"{SCRATCH}/store")
        self.kafka.produce(lines.splitlines())
        self.rows = compare.expected(lines, self.kafka.timestamps(self.records))

    def close(self) -> None:
        for server in [self.kafka, self.store]:
            if server:
                server.stop()

    def bucket(self, name: str) -> str:
        """A new one."""
        self.number += 1
        bucket = f"{name}-{self.number}"
        self.store.make_bucket(bucket)
        return bucket

    def check(self, bucket: str, prefix: str):
        """Number and bytes of the objects, when they hold what was produced."""
        keys = [(key, size) for key, size in self.store.objects(bucket) if key.startswith(prefix) and "/_" not in key]
        found = compare.stored((key, self.store.read(bucket, key)) for key, _ in keys)
        compare.equal(found, self.rows)
        full = [size for _, size in keys if size]
        return len(full), sum(full)

    def environment(self, **more) -> dict:
        # Nothing of the user's own account, and no proxy between processes of one machine.
        own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_") and not name.lower().endswith("_proxy")}
        return own | {"AWS_ACCESS_KEY_ID": servers.KEY, "AWS_SECRET_ACCESS_KEY": servers.SECRET, "AWS_REGION": "us-east-1",
                             "AWS_DEFAULT_REGION": "us-east-1", "S3_ENDPOINT": self.store.endpoint} | more


def ours(way: Way, form: str):
    bucket = way.bucket("ours")
    dataset = f"{SCRATCH}/names-{form}.yaml"
    with open("datasets/names.yaml") as file:
        text = file.read()
    if form == "ndjson":
        text = text.replace("format: parquet", "format: ndjson").replace("codec: zstd", "codec: gzip")
    with open(dataset, "w") as file:
        file.write(text)
    variables = {"DATASET": os.path.abspath(dataset)}
    cost = drain(way, bucket, f"{RELEASE}/consumer", variables)
    figures = json.loads(cost.lines[-1])
    own = figures["event_source_cpu"]
    function = Cost(cost.cpu - own, cost.wall, cost.peak_mb, [])
    return {"freshet": (cost, bucket, "names/"), "freshet, the function's processes alone": (function, bucket, None)}


def python_handler(variant: str, name: str):
    def start(way: Way, form: str):
        bucket = way.bucket(f"python-{variant}")
        binary = os.path.abspath(f"{SCRATCH}/python_{variant}")
        with open(binary, "w") as file:
            file.write(f"#!/bin/sh\nexec {os.path.abspath(PYTHON)} -B {HERE}/python_handler.py {variant}\n")
        os.chmod(binary, 0o755)
        cost = drain(way, bucket, binary, {})
        own = json.loads(cost.lines[-1])["event_source_cpu"]
        # On AWS the event source is Lambda's.
        return {name: (Cost(cost.cpu - own, cost.wall, cost.peak_mb, []), bucket, "names/")}

    return start


def drain(way: Way, bucket: str, binary: str, variables: dict) -> Cost:
    """A Lambda function behind our event source."""
    variables = variables | {
        "S3_BUCKET": bucket, "S3_ENDPOINT": way.store.endpoint, "S3_PATH_STYLE_ACCESS": "true", "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": servers.KEY, "AWS_SECRET_ACCESS_KEY": servers.SECRET,
    }
    command = [f"{RELEASE}/peers", way.kafka.brokers, servers.TOPIC, str(way.records), str(servers.PARTITIONS), binary]
    return run(command + [f"{name}={value}" for name, value in variables.items()], f"{SCRATCH}/{bucket}.log")


def python_consumer(way: Way, form: str):
    bucket = way.bucket("python")
    command = [PYTHON, f"{HERE}/python_consumer.py", way.kafka.brokers, servers.TOPIC, str(way.records), way.store.endpoint, bucket, form]
    cost = run(command, f"{SCRATCH}/{bucket}.log", way.environment())
    return {"Python: librdkafka + pyarrow": (cost, bucket, "names/")}


def spark(way: Way, form: str):
    bucket = way.bucket("spark")
    jars = f"{TOOLS}/spark-{servers.version('spark')}"
    scratch = os.path.abspath(f"{SCRATCH}/{bucket}")
    os.makedirs(scratch)
    command = [f"{TOOLS}/pyspark/bin/python", f"{HERE}/spark_job.py", way.kafka.brokers, servers.TOPIC, way.store.endpoint, bucket, form,
               SPARK_TRIGGER, scratch]
    classes = ",".join(sorted(os.path.abspath(jar) for jar in glob.glob(f"{jars}/*.jar")))
    env = way.environment(PYSPARK_SUBMIT_ARGS=f"--jars {classes} --driver-memory 2g pyspark-shell", SPARK_LOCAL_IP="127.0.0.1",
                          SPARK_LOCAL_DIRS=scratch)
    cost = run(command, f"{SCRATCH}/{bucket}.log", env)
    cold, warm = (json.loads(line) for line in cost.lines if line.startswith('{"stretch"'))
    shutil.rmtree(scratch)
    return {
        "Spark, cold (with the start of its JVM)": (Cost(cold["cpu"], cold["wall"], cost.peak_mb), bucket, "cold/"),
        "Spark, warm (the same once more in that JVM)": (Cost(warm["cpu"] - cold["cpu"], warm["wall"], cost.peak_mb), bucket, "warm/"),
    }


PEERS = [
    Peer("ours", ours),
    Peer("spark", spark),
    Peer("python", python_consumer),
    Peer("python-json", python_handler("json", "Python Lambda handler: json (the handler's processes alone)")),
    Peer("python-orjson", python_handler("orjson", "Python Lambda handler: orjson + pyarrow (the handler's processes alone)")),
]


def say(text: str) -> None:
    print(f"bench-peers: {text}", file=sys.stderr, flush=True)


def measure(way: Way, form: str, peers) -> dict:
    """Costs by row, one a round, with objects and bytes of the first round; and the reason of a peer that failed."""
    table, failed, peers_rows = {}, {}, {}
    for turn in range(ROUNDS):
        for peer in peers:
            if peer.name in failed:
                continue
            try:
                rows = peer.start(way, form)
                peers_rows.setdefault(peer.name, set()).update(rows)
                checked = {name: way.check(bucket, prefix) if prefix else None for name, (_, bucket, prefix) in rows.items()}
                for name, (cost, _, _) in rows.items():
                    objects = checked[name]
                    row = table.setdefault(name, {"costs": [], "objects": objects})
                    row["costs"].append(cost)
                    say(f"{form}, round {turn + 1} of {ROUNDS}: {name}: {cost.cpu:.1f} CPU-s, "
                        f"{way.json_bytes / 1e6 / cost.cpu:.0f} MB a CPU-s, {cost.peak_mb:.0f} MB, {cost.wall:.1f} s"
                        + (f", {objects[0]} objects, {objects[1] / 1e6:.1f} MB, as produced" if objects else ""))
                for _, bucket, _ in rows.values():
                    way.store.forget(bucket)
            except Failed as error:
                failed[peer.name] = str(error)
                # Whatever differs once has no figures, of no round.
                for name in peers_rows.get(peer.name, ()):
                    table.pop(name, None)
                say(f"{peer.name} is left out: {error}")
    return {"rows": table, "failed": failed}


class Turns:
    """A process that does the event once for each line that it is given."""

    def __init__(self, name: str, command, output: str, answers: str):
        self.name, self.output, self.times = name, output, []
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | {answers: subprocess.PIPE}
        self.process = spawn(command, stdin=subprocess.PIPE, text=True, bufsize=1, **streams)
        self.answers = getattr(self.process, answers)

    def event(self) -> float:
        self.process.stdin.write("\n")
        line = self.answers.readline()
        if not line:
            raise Failed(f"{self.name} ended with {self.process.wait()}")
        return float(line)

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def one_event() -> dict:
    """CPU ms of the same event, in turns."""
    say(f"one event, {EVENT_ROUNDS} rounds of {IN_A_ROW}")
    event = f"{SCRATCH}/event.json"
    subprocess.run([f"{RELEASE}/bench", "event", event], check=True)
    with open(event, "rb") as file:
        body = file.read()
    wanted = compare.of_event(body)

    def output(name):
        return f"{SCRATCH}/{name}.parquet"

    def handler(variant):
        return [PYTHON, f"{HERE}/python_handler.py", "rounds", variant, event, output(variant)]

    contenders = [
        Turns("freshet, Parquet zstd", [f"{RELEASE}/bench", "rounds", "freshet, Parquet zstd", event, output("freshet")], output("freshet"), "stderr"),
        Turns("Python handler: json", handler("json"), output("json"), "stdout"),
        Turns("Python handler: orjson + pyarrow", handler("orjson"), output("orjson"), "stdout"),
    ]
    try:
        for contender in contenders:
            contender.event()
            with open(contender.output, "rb") as file:
                content = file.read()
            compare.equal(compare.stored([("event.parquet", content)]), wanted)
            contender.bytes = len(content)
        for _ in range(EVENT_ROUNDS):
            for contender in contenders:
                contender.times.append([contender.event() for _ in range(IN_A_ROW)])
    finally:
        for contender in contenders:
            contender.end()
    return {
        "payload": len(body), "records": wanted.num_rows,
        "rows": {c.name: {"times": c.times, "bytes": c.bytes} for c in contenders},
    }


def main(records: int) -> None:
    if not shutil.which("java"):
        raise Failed("java is missing, which runs Apache Kafka: install a JDK of version 17 or later")
    for end in [signal.SIGINT, signal.SIGTERM]:
        signal.signal(end, signal.default_int_handler)
    adopt_orphans()
    shutil.rmtree(SCRATCH, ignore_errors=True)
    os.makedirs(SCRATCH)
    began = time.time()
    skipped = {}
    if not os.path.isdir(f"{TOOLS}/spark-{servers.version('spark')}"):
        skipped["spark"] = "Spark could not be fetched: `tests/cloud/tools.sh spark` says why"
    peers = [peer for peer in PEERS if peer.name not in skipped and peer.name in os.environ.get("PEERS", peer.name).split(",")]
    way = Way(records)
    tables, others = {}, []
    event = one_event()

    def write() -> None:
        """What there is by now: a run that is stopped has not been for nothing."""
        minutes = (time.time() - began) / 60
        with open(DOCUMENT, "w") as file:
            file.write(report.document(records, way.json_bytes, ROUNDS, tables, event, others, skipped, minutes, SPARK_TRIGGER, SPARK_GC))
        say(f"{DOCUMENT} is written")

    try:
        way.open()
        tables["parquet"] = measure(way, "parquet", peers)
        write()
        if os.environ.get("NDJSON") != "0":
            tables["ndjson"] = measure(way, "ndjson", [peer for peer in peers if not peer.name.startswith("python-")])
            write()
    finally:
        way.close()
    for heading, command in OTHERS:
        say(" ".join(command))
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        others.append((heading, command, done.stdout if done.returncode == 0 else f"It failed ({done.returncode})."))
        write()
    if any("ours" in table["failed"] for table in tables.values()):
        raise Failed("freshet's own rows differ from what was produced: the lines above say how")
    if any(output.startswith("It failed") for _, _, output in others):
        raise Failed(f"a part failed: {DOCUMENT} says which")


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
    except Failed as error:
        sys.exit(f"bench-peers: {error}")
