"""docs/BENCHMARKS.md, whole."""

import importlib.metadata
import os
import platform
import statistics
import subprocess
import time

import servers

OURS, WARM = "freshet", "Spark, warm (the same once more in that JVM)"
PYTHON = "Python: librdkafka + pyarrow"
EVENT_OURS, EVENT_JSON, EVENT_BEST = "freshet, Parquet zstd", "Python handler: json", "Python handler: orjson + pyarrow"

HEAD = """# Benchmarks

`make bench-peers` measures all of this in one run and writes this file.

```sh
make bench-peers                             # 2,000,000 records, three rounds, a quarter of an hour when all is built
ROUNDS=1 make bench-peers RECORDS=200000     # a shorter run
```

Rust, a JDK (17 or later), Maven, Go and Python 3.10 or later must be there; all else is fetched once, from crates.io, Maven Central, the Go module proxy and PyPI.
A peer that cannot be set up is left out, with the reason.
"""

WAY = """## From Kafka to S3

{records:,} records of {size:.0f} bytes of JSON ({megabytes:.0f} MB), people as varied as the API's, made by a seeded generator. They lie on one broker of Apache Kafka, on a topic
with four partitions and `LogAppendTime`, written as our producer writes (idempotent, zstd, `linger.ms` 20). Each peer reads them from the first to the last offset and stores rows in
S3: the dataset's nine columns, partition, offset and Kafka's timestamp (ours also epoch and `_extra`). Each runs {rounds} times, all of them in each round; figures are medians, the range of CPU seconds stands beside.

**Counted** is the processor time (user and system) of everything that a peer starts, from its first process to the end of its last; of ours that is the event source, the function's
processes, the Runtime API between them over HTTP, the ledger and S3's conditional PUTs; of Spark its JVM and the Python program, without the script that launches them and their end. Peak memory is the sum of the resident memory of all its processes, looked at twenty times a second; shared pages
count for each. **Not counted**: the broker and the store, which are the same for all, and making the records. The objects of every run were read back from the store
and compared with what was produced, each value of each row; a run that differed is a failure and has no figures.
"""

NOTES = """What the figures do not say:

- Ours stores each offset exactly once, whatever dies; Spark does by its `_spark_metadata`, which other engines do not read; the Python peers store rows twice after a crash.
- The event source is Lambda's on AWS and costs nothing there. Here it is our own and is counted: it writes each record in base64 into a JSON event, as Lambda's does, and the function takes it out again. Spark and the Python consumer are spared that. A line gives the function's processes alone, as those of the Python handlers do (their peak memory is that of all, the event source among them).
- Ours and the handlers write an object for each event of at most 10,000 records (AWS's limit); Spark and the Python consumer write larger ones. Ours also registers nothing in Glue here (`GLUE_DATABASE` is not set).
- Wall times compare one process (Python), two threads (Spark) and five processes (ours) on the same cores.
- Spark runs as `local[2]`; a cluster adds the traffic between its parts. Its first stretch includes the start of the JVM and the compilation of its code, its second has neither.
"""

SETTINGS = """## Settings of the peers

Each job lies in [tests/peers](../tests/peers), written as its users write it. What was tried for each is what its own documentation recommends; the faster setting stayed.

| peer | job | settings |
|---|---|---|
| freshet | [src/main.rs](../tests/peers/src/main.rs) and the release build of [functions/consumer](../functions/consumer) | 4 pollers, events of 10,000 records or 6,291,456 bytes, Parquet zstd level 1 ([datasets/names.yaml](../datasets/names.yaml)); for gzip `format: ndjson`, `codec: gzip` (level 1) |
| Spark | [spark_job.py](../tests/peers/spark_job.py) | `availableNow`, `maxOffsetsPerTrigger` {trigger}, `from_json` with the schema, polls of 10,000 records and 8 MB a partition, dictionaries for the columns with few values only, Parquet zstd level 1 or JSON gzip level 1, checkpoint on the local disk, S3A with path style and buffers in memory, 2 GB of heap, {gc} |
| Python consumer | [python_consumer.py](../tests/peers/python_consumer.py) | `consume` of up to 100,000 messages, `pyarrow.json` with the schema, dictionaries for the columns with few values only, zstd level 1 or gzip level 1, `put_object`, commit behind it |
| Python handlers | [python_handler.py](../tests/peers/python_handler.py) | fed by our event source over the Lambda Runtime API; `json`: the standard library and `Table.from_pylist`; orjson: a runtime of its own that parses the event with orjson, records by `pyarrow.json`; zstd level 1 |
"""


def document(records, json_bytes, rounds, tables, event, others, skipped, minutes, trigger, gc) -> str:
    megabytes = json_bytes / 1e6
    parts = [
        HEAD,
        machine(records, rounds, minutes),
        WAY.format(records=records, size=json_bytes / records, megabytes=megabytes, rounds=rounds),
        "### Parquet, zstd level 1\n\n" + way_table(tables["parquet"], megabytes),
    ]
    if "ndjson" in tables:
        parts.append("### JSON lines, gzip level 1\n\n" + way_table(tables["ndjson"], megabytes))
    failed = skipped | {name: reason for table in tables.values() for name, reason in table["failed"].items()}
    parts += [f"Left out: {name}, because {reason.strip()}\n" for name, reason in failed.items()]
    parts += [NOTES, event_table(event), goals(tables["parquet"]["rows"], event["rows"]), SETTINGS.format(trigger=f"{int(trigger):,}", gc=gc)]
    for heading, command, output in others:
        parts.append(f"## {heading}\n\n`{' '.join(command)}` said:\n\n{output.strip()}\n")
    return "\n".join(parts)


def way_table(table, megabytes) -> str:
    lines = ["| | MB of JSON a CPU-second | CPU s (least–most) | peak MB | wall s | objects | MB stored |", "|---|---|---|---|---|---|---|"]
    for name, row in table["rows"].items():
        cpu = [cost.cpu for cost in row["costs"]]
        middle = statistics.median(cpu)
        peak, wall = (statistics.median(values) for values in zip(*[(cost.peak_mb, cost.wall) for cost in row["costs"]]))
        objects, size = row["objects"] or ("", None)
        stored = f"{size / 1e6:.0f}" if size else ""
        shown = f"**{name}**" if name == OURS else name
        lines.append(f"| {shown} | {megabytes / middle:.0f} | {middle:.1f} ({min(cpu):.1f}–{max(cpu):.1f}) | {peak:.0f} | {wall:.1f} | {objects} | {stored} |")
    return "\n".join(lines) + "\n"


def event_table(event) -> str:
    lines = [
        "## One Lambda event",
        "",
        f"The same payload of {event['payload']:,} bytes ({event['records']:,} records, one partition) for all, each in a process of its own that is warm, with nothing uploaded (as much as an event may hold by size; on AWS the mapping stops at 10,000 records). "
        f"They take turns of {len(next(iter(event['rows'].values()))['times'][0])} events, one after the other, as a function does with a backlog; the first finds the processor's caches full of another "
        "process's data, which costs whoever is quick the larger part. What came out was compared, value by value.",
        "",
        "| | CPU ms: median | least | most | median of the turns' first | KB stored |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in event["rows"].items():
        times = every(row)
        first = statistics.median(turn[0] for turn in row["times"])
        lines.append(f"| {name} | {statistics.median(times):.1f} | {min(times):.1f} | {max(times):.1f} | {first:.1f} | {row['bytes'] / 1000:.0f} |")
    return "\n".join(lines) + "\n"


def every(row) -> list:
    return [time for turn in row["times"] for time in turn]


def goals(way, event) -> str:
    """Ratios of medians of this run."""

    def of_way(other):
        if OURS not in way or other not in way:
            return None
        return statistics.median(cost.cpu for cost in way[other]["costs"]) / statistics.median(cost.cpu for cost in way[OURS]["costs"])

    def of_event(other):
        return statistics.median(every(event[other])) / statistics.median(every(event[EVENT_OURS]))

    wanted = [
        ("Kafka to S3, Parquet: ours beside Python with librdkafka and pyarrow", of_way(PYTHON), 1.25),
        ("Kafka to S3, Parquet: ours beside warm Spark", of_way(WARM), 2.5),
        ("One event: ours beside the Python handler with json", of_event(EVENT_JSON), 9),
        ("One event: ours beside the Python handler with orjson and pyarrow", of_event(EVENT_BEST), 4),
    ]
    lines = ["## Held against the goals", "", "Ratios of the medians of this run, more is better for us.", "", "| | goal | this run | |", "|---|---|---|---|"]
    for name, ratio, goal in wanted:
        shown, verdict = ("not measured", "") if ratio is None else (f"{ratio:.2f}", "reached" if ratio >= goal else "**missed**")
        lines.append(f"| {name} | ≥ {goal} | {shown} | {verdict} |")
    return "\n".join(lines) + "\n"


def said(*command) -> str:
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.stdout.strip().splitlines()[0]
    except (OSError, IndexError):
        return "not there"


# Before this document is written, which would make it another one.
COMMIT = said("git", "describe", "--always", "--dirty")


def machine(records, rounds, minutes) -> str:
    def first(path, name) -> str:
        with open(path) as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(name)), "unknown")

    packages = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ["confluent-kafka", "pyarrow", "orjson", "boto3"])
    lines = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()) + f", {minutes:.0f} minutes",
        "command": f"`ROUNDS={rounds} make bench-peers RECORDS={records}`",
        "commit": COMMIT,
        "processor": f"{first('/proc/cpuinfo', 'model name')}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{int(first('/proc/meminfo', 'MemTotal').split()[0]) / 1e6:.0f} GB",
        "load when this was written": f"{os.getloadavg()[2]:.1f} (15 minutes)",
        "kernel": platform.release(),
        "Rust": said("rustc", "--version"),
        "Java": said("java", "-version"),
        "Apache Kafka": servers.version("kafka"),
        "versitygw": servers.version("versitygw"),
        "Spark": servers.version("spark"),
        "Python": f"{platform.python_version()}, {packages}",
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in lines.items()) + "\n"
