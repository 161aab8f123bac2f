#!/usr/bin/env python3
"""Computes docs/COST.md, and in docs/SCALE.md what stands between `<!-- cost.py: … -->` and `<!-- end -->`: `make cost` writes both,
`docs/cost.py --check` says whether they are up to date.

Everything that a reader may want to change stands in the first part. Prices are list prices in us-east-1, in dollars, without a
free tier.
"""

import math
import re
import sys
from pathlib import Path

COST, SCALE, CONFIGURATION = (Path(__file__).with_name(name) for name in ("COST.md", "SCALE.md", "CONFIGURATION.md"))

# --- Measured. What a full event costs the consumer's whole process, and what becomes of it, is read from docs/SCALE.md's table
# (`make bench-growth`); its rows of 1, 10, 100 and 1,000 partitions of people count.
FORMATS = {"Parquet zstd": "parquet zstd", "NDJSON gzip": "ndjson gzip"}  # as that table has them
# `make bench` says of its event, another one of the same generator (docs/BENCHMARKS.md):
MEASURED_RECORDS = 12_563
MEASURED_JSON = 3_435_687  # bytes; as base64 in their envelope they fill Lambda's 6,291,456

# --- Assumed.
CPU_FACTOR = 2  # an arm64 Lambda's processor takes that many times as long as the EPYC that was measured on; an Intel Xeon took 1.4
WAIT_MS = 130  # for S3, one after another: the ledger is read (20), the object put (70), the ledger put (40)
CONCURRENCY = 4  # partitions of an event whose waits overlap (CONSUMER_CONCURRENCY)
BATCH = 10_000  # records of an event at most: the mapping's limit, and infra/'s batch_size
PARTITIONS = 3  # of the topic; each event holds records of all of them, which is the dearest way
WINDOW_S = 60  # batching_window_seconds
LOG_BYTES = 2_000  # an invocation: one line of metrics, Lambda's own three
DEFAULT_MIB, TIMEOUT_S = 256, 60  # infra/'s consumer_memory_mib and consumer_timeout_seconds
RATES = (0.1, 1, 10)  # MB of JSON a second
HOURS = 730
MEMORY_MIB = (128, 256, 512, 1024, 1769)
FULL_CPU_MIB = 1769  # https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
ENDPOINTS = 4  # Lambda's and STS's, in two zones each
EPU_MB_S = 20  # that an event poller unit polls at most; what it delivers, in base64, is taken to count
CONNECT_MB_S = 5  # that one worker of 1 vCPU writes as Parquet; nobody measured it here
OBJECTS_OF = ((3, 0.1), (3, 1), (3, 10), (30, 10), (1000, 10))  # partitions and rate: the lines of docs/SCALE.md's computed table

# --- Prices: dollars, unit, page, how it was looked up.
LISTED = "on AWS's page"
SECOND = "at second hand"
MEMORY = "from memory, not checked"
PRICES = {
    "lambda_gb_s": (0.0000133334, "GB-second, arm64", "https://aws.amazon.com/lambda/pricing/", f"{SECOND}: cloudchipr.com, 2024"),
    "lambda_request": (0.20 / 1e6, "request", "https://aws.amazon.com/lambda/pricing/", f"{SECOND}: cloudchipr.com, 2024"),
    "epu_hour": (0.185, "event poller unit (up to 20 MB/s, ten pollers) and hour", "https://docs.aws.amazon.com/lambda/latest/dg/kafka-scaling-modes.html", f"{LISTED}, its example, 2026"),
    "s3_put": (0.005 / 1e3, "PUT or LIST", "https://aws.amazon.com/s3/pricing/", f"{SECOND}: c3x.dev"),
    "s3_get": (0.0004 / 1e3, "GET or HEAD", "https://aws.amazon.com/s3/pricing/", f"{SECOND}: c3x.dev"),
    "s3_gb_month": (0.023, "GB stored for a month", "https://aws.amazon.com/s3/pricing/", f"{SECOND}: c3x.dev"),
    "glue_request": (1.0 / 1e6, "catalog request", "https://aws.amazon.com/glue/pricing/", f"{SECOND}: public price lists, 2026"),
    "glue_object_month": (1.0 / 1e5, "partition kept for a month", "https://aws.amazon.com/glue/pricing/", f"{SECOND}: public price lists, 2026"),
    "logs_gb": (0.50, "GB of logs", "https://aws.amazon.com/cloudwatch/pricing/", MEMORY),
    "metric_month": (0.30, "custom metric and month, by the hours in which it is written", "https://aws.amazon.com/cloudwatch/pricing/", f"{SECOND}: infra/README.md; public price lists, 2022"),
    "nat_hour": (0.045 + 0.005, "hour of a NAT gateway and its address", "https://aws.amazon.com/vpc/pricing/", f"{SECOND}: infra/README.md, 2026"),
    "nat_gb": (0.045, "GB through a NAT gateway", "https://aws.amazon.com/vpc/pricing/", f"{SECOND}: infra/README.md, 2026"),
    "endpoint_hour": (0.01, "hour of an interface endpoint in one zone", "https://aws.amazon.com/privatelink/pricing/", MEMORY),
    "endpoint_gb": (0.01, "GB through an interface endpoint", "https://aws.amazon.com/privatelink/pricing/", MEMORY),
    "firehose_msk_gb": (0.055, "GB taken from MSK", "https://aws.amazon.com/firehose/pricing/", MEMORY),
    "firehose_put_gb": (0.029, "GB put directly, each record counted in steps of 5 KB", "https://aws.amazon.com/firehose/pricing/", f"{SECOND}: several, 2026"),
    "firehose_convert_gb": (0.018, "GB converted to Parquet", "https://aws.amazon.com/firehose/pricing/", f"{SECOND}: several, 2026"),
    "mcu_hour": (0.11, "MSK Connect unit (1 vCPU, 4 GB) and hour", "https://aws.amazon.com/msk/pricing/", f"{SECOND}: several"),
    "fargate_vcpu_hour": (0.03238, "Fargate vCPU and hour, arm64", "https://aws.amazon.com/fargate/pricing/", MEMORY),
    "fargate_gb_hour": (0.00356, "Fargate GB and hour, arm64", "https://aws.amazon.com/fargate/pricing/", MEMORY),
}
DATE = "2026-11-25"

# --- Computed.


def claim(holds, sentence):
    """Sentences are written for the numbers beside them: who changes an input learns which one has to be worded anew."""
    if not holds:
        sys.exit(f"docs/cost.py: by these inputs it is not so that {sentence}: word the sentence anew")


def growth(page):
    """By format and partitions: CPU milliseconds of an event that is not the first, bytes stored."""
    measured = {form: {} for form in FORMATS}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        for form, name in FORMATS.items():
            if len(cells) == 10 and cells[0] == name and cells[2] == "people":
                measured[form][int(cells[1])] = (float(cells[5]), float(cells[8]) * 1e3)
    if any(not {1, 10, 100, 1000} <= rows.keys() for rows in measured.values()):
        sys.exit(f"docs/cost.py: docs/SCALE.md lacks rows of `make bench-growth`, or has other columns; found: {measured}")
    return measured


def consumer_metrics(page):
    """How many the consumer writes, each with one set of dimensions: tests/metric_names.rs holds the table against the code."""
    found = re.findall(r"^\| `[A-Z]\w+` \| \w+ \| (?:consumer|both) \|", page, re.M)
    return len(found) or sys.exit("docs/cost.py: docs/CONFIGURATION.md has no table of metrics, or other columns")


GROWTH = growth(SCALE.read_text())
METRICS = consumer_metrics(CONFIGURATION.read_text())
# Of each further partition in the event: requests are signed and sent, an object is opened and closed.
PARTITION_CPU_MS = {form: (rows[100][0] - rows[1][0]) / 99 for form, rows in GROWTH.items()}
P = {name: price for name, (price, *_) in PRICES.items()}
BASE64 = 6_291_456 / MEASURED_JSON  # bytes that travel for each byte of JSON
EVENT_JSON = MEASURED_JSON * min(1, BATCH / MEASURED_RECORDS)  # bytes of an event that is full
GB = 1e9


def month_gb(rate):
    return rate * 1e6 * HOURS * 3600 / GB


def events_per_gb(rate):
    """A window's records make full events and one that is not."""
    window = rate * 1e6 * WINDOW_S
    return math.ceil(window / EVENT_JSON) / window * GB


def stored(form, json_bytes):
    """Bytes of the object that so many bytes of JSON become. A full event of N partitions makes N objects: between the measured
    ones the logarithm of the bytes is interpolated over that of N, and beyond them the nearest line goes on."""
    objects = MEASURED_JSON / json_bytes
    rows = sorted((partitions, size) for partitions, (_, size) in GROWTH[form].items())
    first = max([0] + [i for i, (partitions, _) in enumerate(rows[:-1]) if partitions <= objects])
    (few, much), (many, more) = rows[first : first + 2]
    return much * (objects / few) ** (math.log(more / much) / math.log(many / few)) / objects


def invocation(form, memory, json_bytes, partitions=PARTITIONS):
    """Seconds that one invocation takes, with so many partitions in its event."""
    cpu = GROWTH[form][1][0] * json_bytes / MEASURED_JSON + PARTITION_CPU_MS[form] * (partitions - 1)
    waits = WAIT_MS * math.ceil(partitions / CONCURRENCY)
    return math.ceil(cpu * CPU_FACTOR / min(1, memory / FULL_CPU_MIB) + waits) / 1e3


def gb_seconds(form, memory, rate):
    events = events_per_gb(rate)
    return events * invocation(form, memory, GB / events) * memory / 1024


def consumer(form, memory, rate):
    """Dollars a GB of JSON, by what is paid for."""
    events = events_per_gb(rate)
    # A directory an hour; every container asks once for the table, once for the directory: ten containers are plenty.
    glue = (20 * P["glue_request"] + P["glue_object_month"]) / (rate * 1e6 * 3600) * GB
    return {
        "Lambda, GB-seconds": gb_seconds(form, memory, rate) * P["lambda_gb_s"],
        "Lambda, requests": events * P["lambda_request"],
        "S3, PUT": events * PARTITIONS * 2 * P["s3_put"],
        "S3, GET": events * PARTITIONS * P["s3_get"],
        "Glue": glue,
        "CloudWatch Logs": events * LOG_BYTES / GB * P["logs_gb"],
        f"CloudWatch, {METRICS} metrics": METRICS * P["metric_month"] / month_gb(rate),
    }


def alternatives(form, memory):
    """Dollars a month by rate. Kafka, and storage in S3, are the same for all and left out."""
    own = lambda rate: sum(consumer(form, memory, rate).values()) * month_gb(rate)
    moved = lambda rate: month_gb(rate) * BASE64
    epus = lambda rate: max(1, math.ceil(rate * BASE64 / EPU_MB_S))
    workers = lambda rate: max(1, math.ceil(rate / CONNECT_MB_S))
    # A rotated object a minute and partition.
    connect_s3 = HOURS * 60 * PARTITIONS * P["s3_put"]
    return [
        ("freshet, the consumer alone (the table above)", own),
        ("freshet, on demand, everything through interface endpoints of Lambda and STS in two zones",
         lambda r: own(r) + ENDPOINTS * HOURS * P["endpoint_hour"] + moved(r) * P["endpoint_gb"]),
        ("freshet, on demand, everything through a NAT gateway (the default)",
         lambda r: own(r) + HOURS * P["nat_hour"] + moved(r) * P["nat_gb"]),
        (f"freshet, provisioned pollers ({dollars(HOURS * P['epu_hour'])} a month for each unit of up to {EPU_MB_S} MB/s)",
         lambda r: own(r) + epus(r) * HOURS * P["epu_hour"]),
        ("Firehose from MSK (MSK's managed delivery to S3), Parquet",
         lambda r: month_gb(r) * (P["firehose_msk_gb"] + P["firehose_convert_gb"])),
        ("Firehose, Direct PUT of records of 5 KB, Parquet: no Kafka, at least once",
         lambda r: month_gb(r) * (P["firehose_put_gb"] + P["firehose_convert_gb"])),
        ("MSK Connect, always on", lambda r: workers(r) * HOURS * P["mcu_hour"] + connect_s3),
        ("Connect workers of your own on Fargate (1 vCPU, 4 GB), always on",
         lambda r: workers(r) * HOURS * (P["fargate_vcpu_hour"] + 4 * P["fargate_gb_hour"]) + connect_s3),
    ]


def dollars(amount):
    return f"${amount:,.0f}" if amount >= 100 else f"${amount:,.2f}"


def rounded(number):
    """To two digits."""
    return f"{float(f'{number:.2g}'):,g}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def cost_page():
    parquet = "Parquet zstd"
    memory, *others = {min(MEMORY_MIB, key=lambda m: gb_seconds(f, m, r)) for f in FORMATS for r in RATES}
    claim(not others, "one size is the cheapest for both formats at each rate")
    sizes = [
        [f"{m}"] + [x for f in FORMATS for x in (f"{invocation(f, m, EVENT_JSON) * 1e3:.0f}", f"{gb_seconds(f, m, 10):.1f}", f"{gb_seconds(f, m, 10) * P['lambda_gb_s'] * 1e3:.2f}")]
        for m in MEMORY_MIB
    ]
    size_head = ["MiB"] + [x for f in FORMATS for x in (f"{f}: ms an event", "GB-s a GB", "$ a TB")]
    kinds = list(consumer(parquet, memory, 1))
    per_gb = [[kind] + [f"{consumer(parquet, memory, r)[kind]:.5f}" for r in RATES] for kind in kinds]
    per_gb.append(["**all, a GB of JSON**"] + [f"**{sum(consumer(parquet, memory, r).values()):.5f}**" for r in RATES])
    per_gb.append(["a month"] + [dollars(sum(consumer(parquet, memory, r).values()) * month_gb(r)) for r in RATES])
    share = lambda kind, r: consumer(parquet, memory, r)[kind] / sum(consumer(parquet, memory, r).values())
    claim(all(share("S3, PUT", r) > 0.5 for r in RATES), "S3's PUTs are most of the consumer's price")
    claim(all(share("Lambda, GB-seconds", r) < 0.1 for r in RATES), "faster code would hardly make it cheaper")
    object_json = GB / events_per_gb(1) / PARTITIONS
    kept = stored(parquet, object_json) / object_json
    systems = alternatives(parquet, memory)
    beside = [[name] + [x for r in RATES for x in (dollars(cost(r)), f"{cost(r) / month_gb(r):.4f}")] for name, cost in systems]
    _, endpoints, _, pollers, firehose, _, connect, fargate = (cost for _, cost in systems)
    claim(firehose(0.1) < min(system(0.1) for system in (endpoints, pollers, connect, fargate)), "Firehose is the cheapest at 0.1 MB/s")
    for rate in (1, 10):
        ours = min(endpoints(rate), pollers(rate))
        claim(max(connect(rate), fargate(rate)) < ours < firehose(rate), f"at {rate} MB/s freshet comes next to always-on workers")
    beside_head = [""] + [x for r in RATES for x in (f"{r:g} MB/s: a month", "a GB")]
    prices = [[unit, f"{price:.10f}".rstrip("0").rstrip("."), f"[{url.split('/')[2]}]({url})", how] for price, unit, url, how in PRICES.values()]
    measured = ", ".join(f"{form} {rows[1][0]:g} ms and {rows[1][1] / 1e6:.2f} MB stored" for form, rows in GROWTH.items())
    further = " and ".join(f"{ms:.1f}" for ms in PARTITION_CPU_MS.values())
    puts = ", ".join(f"{share('S3, PUT', r) * 100:.0f} % at {r:g} MB/s" for r in RATES)
    # From this rate on the gateway's bytes alone cost more than a poller unit.
    turn = HOURS * P["epu_hour"] / (month_gb(1) * BASE64 * P["nat_gb"])
    # Endpoints cost by the hour as well, pollers need none.
    endpoint_turn = HOURS * (P["epu_hour"] - ENDPOINTS * P["endpoint_hour"]) / (month_gb(1) * BASE64 * P["endpoint_gb"])
    rates = ", ".join(f"{r:g} MB/s is {month_gb(r):,.0f} GB" for r in RATES)
    return f"""# What it costs to store a GB

Computed by [cost.py](cost.py) from what stands in its first part and what was measured (`make cost` writes this page); list prices of us-east-1 without a free tier, looked up on {DATE}. A GB is 10⁹ bytes of
JSON as it lies on the topic; a month has {HOURS} hours, so that {rates}. What the whole system costs at rest, Kafka before all, is in [infra/README.md](../infra/README.md#what-it-costs).

Measured, for {MEASURED_JSON / 1e6:.2f} MB of JSON ({MEASURED_RECORDS:,} records, all that fits into an invocation): {measured}; {further} ms for each further partition ([SCALE.md](SCALE.md)). Assumed: Lambda's processor takes {CPU_FACTOR:g} times as
long; {WAIT_MS} ms of waits for S3; {PARTITIONS} partitions, all in each event; a batching window of {WINDOW_S} s. The event source mapping gives {BATCH:,} records at most, so that an event of ours holds {EVENT_JSON / 1e6:.2f} MB.

## Memory

A function's share of the processor is its memory / {FULL_CPU_MIB} MiB, and waits are paid for at any size.

{table(size_head, sizes)}

{memory} MiB is the cheapest for both, at each of the rates below: more memory shortens the work and makes each wait dearer. infra/'s default of {DEFAULT_MIB} costs {dollars((gb_seconds(parquet, DEFAULT_MIB, 10) - gb_seconds(parquet, memory, 10)) * P["lambda_gb_s"] * 1e3)} more a TB of Parquet and answers
in {invocation(parquet, DEFAULT_MIB, EVENT_JSON) / invocation(parquet, memory, EVENT_JSON) * 100:.0f} % of the time; `consumer_memory_mib` turns it.

## The consumer, dollars a GB

{table(["Parquet zstd, " + str(memory) + " MiB"] + [f"{r:g} MB/s" for r in RATES], per_gb)}

S3's PUTs, two a partition and event, are most of it: {puts}. Fewer partitions, or a longer window where events are not full, make it cheaper; faster code hardly would. The consumer's {METRICS} metrics cost {dollars(METRICS * P["metric_month"])} a month at any rate, one of them (`OffsetGaps`) only
in hours that have gaps. Storage is beside that: a GB becomes {kept:.2f} GB of Parquet, ${kept * P["s3_gb_month"]:.3f} a month.

## Beside others, dollars a month and a GB

{table(beside_head, beside)}

Kafka and storage are the same for all, and left out; so are alarms and dashboards, metrics of Connect's workers, and what Firehose pays for private connectivity to the cluster. One Connect worker is taken to write {CONNECT_MB_S} MB/s, which nobody measured here.

- On demand the pollers are free, but what they hand to Lambda, {BASE64:.2f} bytes a byte of JSON, leaves the cluster's network through its NAT gateway or endpoint. AWS does not say what of it is billed: all is assumed, which is the dearest reading. From about {turn:.1f} MB/s on
  `provisioned_pollers`, which need neither, are cheaper than what goes through the gateway (its hours not counted: it is there for the producer anyway), from {endpoint_turn:.1f} MB/s on than endpoints.
- Beside a Kafka that is there anyway, Firehose is the cheapest at 0.1 MB/s, and from 1 MB/s on always-on workers are, for whoever runs them; freshet with pollers or endpoints comes next. What a dollar buys differs: Firehose delivers at least once, and
  Connect's S3 sink stores each record once only where its partitioner is deterministic.
- Firehose counts a record that is put directly as 5 KB at least: one of ours, {MEASURED_JSON / MEASURED_RECORDS:.0f} bytes, costs {5_000 * MEASURED_RECORDS / MEASURED_JSON:.0f} times the line above unless the sender packs several into one.

## Prices

{table(["for a", "$", "page", "looked up"], prices)}
"""


def objects_table():
    """How many objects, and of which size, by partitions and rate."""
    parquet = "Parquet zstd"
    rows = []
    for partitions, rate in OBJECTS_OF:
        json_bytes = rate * 1e6 * 86_400
        events = round(events_per_gb(rate) * json_bytes / GB)
        objects = events * partitions
        size = stored(parquet, json_bytes / objects)
        name = f"{partitions:,}, {rate:g} MB/s"
        rows.append([name, f"{events:,}", f"{objects:,}", rounded(size / 1e3), rounded(objects * 2 / 86_400)])
    head = ["partitions, rate of JSON", "events a day", "objects a day", "KB an object", "PUTs a second, data and ledgers"]
    return f"""
For records like the dataset's ({MEASURED_JSON / MEASURED_RECORDS:.0f} bytes) an event holds {BATCH:,} of them, the mapping's limit, before 6 MB are full: {EVENT_JSON / 1e6:.1f} MB of JSON. In the dearest case each event holds records of each partition; then an event makes an object a partition. With
the default window of {WINDOW_S} s, or once an event is full, as Parquet:

{table(head, rows)}

The less an object holds, the less well it is compressed. Sizes are interpolated between the measured rows of {", ".join(f"{n:,}" for n in sorted(GROWTH[parquet]))} partitions, both axes logarithmic; beyond the last row the last line goes on.
"""


def in_time():
    """Partitions that an event may have until its invocation runs out of time."""
    parquet, share = "Parquet zstd", DEFAULT_MIB / FULL_CPU_MIB
    once = GROWTH[parquet][1][0] * EVENT_JSON / MEASURED_JSON * CPU_FACTOR / share
    each = PARTITION_CPU_MS[parquet] * CPU_FACTOR / share + WAIT_MS / CONCURRENCY
    return f"some {rounded((TIMEOUT_S * 1e3 - once) / each)} partitions in an event, half as many in their first one, at {TIMEOUT_S} s and {DEFAULT_MIB} MiB"


def one_partition():
    """MB of JSON a second that full events of one partition come to, one after another."""
    least, most = MEMORY_MIB[0], MEMORY_MIB[-1]
    rate = lambda form, memory: f"{EVENT_JSON / 1e6 / invocation(form, memory, EVENT_JSON, 1):.0f}"
    parquet, ndjson = FORMATS
    return (
        f"Parquet {rate(parquet, least)} MB/s at {least} MiB, {rate(parquet, most)} MB/s at {most:,}; "
        f"gzipped lines {rate(ndjson, least)} and {rate(ndjson, most)}"
    )


def scale_page():
    """docs/SCALE.md as it is, with what is computed in its places."""
    parquet, ndjson = PARTITION_CPU_MS.values()
    places = {
        "partition": f"some {parquet:.1f} ms each as Parquet, {ndjson:.1f} ms as NDJSON",
        "objects": objects_table(),
        "in time": in_time(),
        "one partition": one_partition(),
    }
    page = SCALE.read_text()
    for name, text in places.items():
        page, found = re.subn(f"(<!-- cost.py: {name} -->).*?(<!-- end -->)", lambda place: place[1] + text + place[2], page, flags=re.S)
        if found != 1:
            sys.exit(f"docs/cost.py: docs/SCALE.md has {found} places `<!-- cost.py: {name} -->…<!-- end -->`, and should have one")
    return page


if __name__ == "__main__":
    pages = {COST: cost_page(), SCALE: scale_page()}
    if sys.argv[1:] == ["--check"]:
        for path, text in pages.items():
            if not path.exists() or path.read_text() != text:
                sys.exit(f"docs/{path.name} is not what docs/cost.py computes: run `make cost`")
    else:
        for path, text in pages.items():
            path.write_text(text)
