#!/usr/bin/env python3
"""Computes docs/COST.md from the inputs below: `make cost` writes it, `docs/cost.py --check` says whether it is up to date.

Everything that a reader may want to change stands in the first part. Prices are list prices in us-east-1, in dollars, without a
free tier.
"""

import math
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("COST.md")

# --- Measured by `make bench-growth`: one full event of one partition, the consumer's whole process. docs/SCALE.md has more of it.
MEASURED_RECORDS = 12_563
MEASURED_JSON = 3_435_687  # bytes; as base64 in their envelope they fill Lambda's 6,291,456
FORMATS = {  # CPU milliseconds, bytes stored
    "Parquet zstd": (23.5, 813_000),
    "NDJSON gzip": (43.8, 1_476_000),
}
# Of each further partition in the event: requests are signed and sent, an object is opened and closed.
PARTITION_CPU_MS = 1.2

# --- Assumed.
CPU_FACTOR = 1.5  # an arm64 Lambda's processor takes that many times as long as the one that was measured on
WAIT_MS = 130  # for S3, one after another: the ledger is read (20), the object put (70), the ledger put (40)
CONCURRENCY = 4  # partitions of an event whose waits overlap (CONSUMER_CONCURRENCY)
BATCH = 10_000  # records of an event at most: the mapping's limit, and infra/'s batch_size
PARTITIONS = 3  # of the topic; each event holds records of all of them, which is the dearest way
WINDOW_S = 60  # batching_window_seconds
LOG_BYTES = 2_000  # an invocation: one line of metrics, Lambda's own three
RATES = (0.1, 1, 10)  # MB of JSON a second
HOURS = 730
MEMORY_MIB = (128, 256, 512, 1024, 1769)
FULL_CPU_MIB = 1769  # https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
ENDPOINTS = 4  # Lambda's and STS's, in two zones each
CONNECT_MB_S = 5  # that one worker of 1 vCPU writes as Parquet; nobody measured it here

# --- Prices: dollars, unit, page, how it was looked up.
LISTED = "on AWS's page"
SECOND = "at second hand"
MEMORY = "from memory, not checked"
PRICES = {
    "lambda_gb_s": (0.0000133334, "GB-second, arm64", "https://aws.amazon.com/lambda/pricing/", f"{SECOND}: cloudchipr.com, 2024"),
    "lambda_request": (0.20 / 1e6, "request", "https://aws.amazon.com/lambda/pricing/", f"{SECOND}: cloudchipr.com, 2024"),
    "epu_hour": (0.185, "event poller unit and hour, up to 20 MB/s", "https://docs.aws.amazon.com/lambda/latest/dg/kafka-scaling-modes.html", f"{LISTED}, its example, 2026"),
    "s3_put": (0.005 / 1e3, "PUT or LIST", "https://aws.amazon.com/s3/pricing/", f"{SECOND}: c3x.dev"),
    "s3_get": (0.0004 / 1e3, "GET or HEAD", "https://aws.amazon.com/s3/pricing/", f"{SECOND}: c3x.dev"),
    "s3_gb_month": (0.023, "GB stored for a month", "https://aws.amazon.com/s3/pricing/", f"{SECOND}: c3x.dev"),
    "glue_request": (1.0 / 1e6, "catalog request", "https://aws.amazon.com/glue/pricing/", f"{SECOND}: public price lists, 2026"),
    "glue_object_month": (1.0 / 1e5, "partition kept for a month", "https://aws.amazon.com/glue/pricing/", f"{SECOND}: public price lists, 2026"),
    "logs_gb": (0.50, "GB of logs", "https://aws.amazon.com/cloudwatch/pricing/", MEMORY),
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


def invocation(form, memory, json_bytes):
    """Seconds that one invocation takes, PARTITIONS in its event."""
    cpu = FORMATS[form][0] * json_bytes / MEASURED_JSON + PARTITION_CPU_MS * (PARTITIONS - 1)
    waits = WAIT_MS * math.ceil(PARTITIONS / CONCURRENCY)
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
    }


def alternatives(form, memory):
    """Dollars a month by rate. Kafka, and storage in S3, are the same for all and left out."""
    own = lambda rate: sum(consumer(form, memory, rate).values()) * month_gb(rate)
    moved = lambda rate: month_gb(rate) * BASE64
    epus = lambda rate: max(1, math.ceil(rate * BASE64 / 20))
    workers = lambda rate: max(1, math.ceil(rate / CONNECT_MB_S))
    # A rotated object a minute and partition.
    connect_s3 = HOURS * 60 * PARTITIONS * P["s3_put"]
    return [
        ("freshet, the consumer alone (the table above)", own),
        ("freshet, on demand, everything through interface endpoints of Lambda and STS in two zones",
         lambda r: own(r) + ENDPOINTS * HOURS * P["endpoint_hour"] + moved(r) * P["endpoint_gb"]),
        ("freshet, on demand, everything through a NAT gateway (the default)",
         lambda r: own(r) + HOURS * P["nat_hour"] + moved(r) * P["nat_gb"]),
        ("freshet, provisioned pollers", lambda r: own(r) + epus(r) * HOURS * P["epu_hour"]),
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


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def page():
    parquet = "Parquet zstd"
    cheapest = {(f, r): min(MEMORY_MIB, key=lambda m: gb_seconds(f, m, r)) for f in FORMATS for r in RATES}
    memory = cheapest[parquet, 1]
    sizes = [
        [f"{m}"] + [x for f in FORMATS for x in (f"{invocation(f, m, EVENT_JSON) * 1e3:.0f}", f"{gb_seconds(f, m, 10):.1f}", f"{gb_seconds(f, m, 10) * P['lambda_gb_s'] * 1e3:.2f}")]
        for m in MEMORY_MIB
    ]
    size_head = ["MiB"] + [x for f in FORMATS for x in (f"{f}: ms an event", "GB-s a GB", "$ a TB")]
    kinds = list(consumer(parquet, memory, 1))
    per_gb = [[kind] + [f"{consumer(parquet, memory, r)[kind]:.5f}" for r in RATES] for kind in kinds]
    per_gb.append(["**all, a GB of JSON**"] + [f"**{sum(consumer(parquet, memory, r).values()):.5f}**" for r in RATES])
    per_gb.append(["a month"] + [dollars(sum(consumer(parquet, memory, r).values()) * month_gb(r)) for r in RATES])
    stored = FORMATS[parquet][1] / MEASURED_JSON
    others = alternatives(parquet, memory)
    beside = [[name] + [x for r in RATES for x in (dollars(cost(r)), f"{cost(r) / month_gb(r):.4f}")] for name, cost in others]
    beside_head = [""] + [x for r in RATES for x in (f"{r:g} MB/s: a month", "a GB")]
    prices = [[unit, f"{price:.10f}".rstrip("0").rstrip("."), f"[{url.split('/')[2]}]({url})", how] for price, unit, url, how in PRICES.values()]
    measured = ", ".join(f"{form} {cpu:g} ms and {size / 1e6:.2f} MB stored" for form, (cpu, size) in FORMATS.items())
    # From this rate on the gateway's bytes alone cost more than a poller unit.
    turn = HOURS * P["epu_hour"] / (month_gb(1) * BASE64 * P["nat_gb"])
    # Endpoints cost by the hour as well, pollers need none.
    endpoint_turn = HOURS * (P["epu_hour"] - ENDPOINTS * P["endpoint_hour"]) / (month_gb(1) * BASE64 * P["endpoint_gb"])
    rates = ", ".join(f"{r:g} MB/s is {month_gb(r):,.0f} GB" for r in RATES)
    return f"""# What it costs to store a GB

Computed by [cost.py](cost.py) from what stands in its first part (`make cost` writes this page); list prices of us-east-1 without a free tier, looked up on {DATE}. A GB is 10⁹ bytes of
JSON as it lies on the topic; a month has {HOURS} hours, so that {rates}. What the whole system costs at rest, Kafka before all, is in [infra/README.md](../infra/README.md#what-it-costs).

Measured, for {MEASURED_JSON / 1e6:.2f} MB of JSON ({MEASURED_RECORDS:,} records, all that fits into an invocation): {measured}; {PARTITION_CPU_MS:g} ms for each further partition ([SCALE.md](SCALE.md)). Assumed: Lambda's processor takes {CPU_FACTOR:g} times as
long; {WAIT_MS} ms of waits for S3; {PARTITIONS} partitions, all in each event; a batching window of {WINDOW_S} s. The event source mapping gives {BATCH:,} records at most, so that an event of ours holds {EVENT_JSON / 1e6:.2f} MB.

## Memory

A function's share of the processor is its memory / {FULL_CPU_MIB} MiB, and waits are paid for at any size.

{table(size_head, sizes)}

{memory} MiB is the cheapest for both: more memory shortens the work and makes each wait dearer. infra/'s default of 256 costs {dollars((gb_seconds(parquet, 256, 10) - gb_seconds(parquet, memory, 10)) * P["lambda_gb_s"] * 1e3)} more a TB and answers
in {invocation(parquet, 256, EVENT_JSON) / invocation(parquet, memory, EVENT_JSON) * 100:.0f} % of the time; `consumer_memory_mib` turns it.

## The consumer, dollars a GB

{table(["Parquet zstd, " + str(memory) + " MiB"] + [f"{r:g} MB/s" for r in RATES], per_gb)}

S3's PUTs are nine tenths of it: two a partition and event. Fewer partitions, or a longer window where events are not full, make it cheaper; faster code hardly would. Storage is beside that: a GB becomes {stored:.2f} GB of Parquet, {dollars(stored * P["s3_gb_month"])} a month.

## Beside others, dollars a month and a GB

{table(beside_head, beside)}

Kafka and storage are the same for all, and left out; so is what Firehose pays for private connectivity to the cluster. One Connect worker is taken to write {CONNECT_MB_S} MB/s, which nobody measured here.

- On demand the pollers are free, but what they hand to Lambda, {BASE64:.2f} bytes a byte of JSON, leaves the cluster's network through its NAT gateway or endpoint. AWS does not say what of it is billed: all is assumed, which is the dearest reading. From about {turn:.1f} MB/s on
  `provisioned_pollers`, which need neither, are cheaper than what goes through the gateway (its hours not counted: it is there for the producer anyway), from {endpoint_turn:.1f} MB/s on than endpoints.
- Beside a Kafka that is there anyway, Firehose is the cheapest at 0.1 MB/s, and from 1 MB/s on always-on workers are, for whoever runs them; freshet with pollers or endpoints comes next. What a dollar buys differs: Firehose delivers at least once, and
  Connect's S3 sink stores each record once only where its partitioner is deterministic.
- Firehose counts a record that is put directly as 5 KB at least: one of ours, {MEASURED_JSON / MEASURED_RECORDS:.0f} bytes, costs {5_000 * MEASURED_RECORDS / MEASURED_JSON:.0f} times the line above unless the sender packs several into one.

## Prices

{table(["for a", "$", "page", "looked up"], prices)}
"""


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text() != page():
            sys.exit("docs/COST.md is not what docs/cost.py computes: run `make cost`")
    else:
        PAGE.write_text(page())
