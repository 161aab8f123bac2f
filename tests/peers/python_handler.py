"""The peer that is a Lambda function in Python: one event in, one Parquet object out.

As a function it speaks the Lambda Runtime API. `python_handler.py rounds VARIANT EVENT OUTPUT` measures instead: an event for each line on
standard input, the milliseconds of processor time on standard output, what it came to in a file.
"""

import base64
import binascii
import io
import json
import os
import sys
import time
import urllib.request

import boto3
import orjson
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

import rows

pa.set_cpu_count(1)  # A function of this size has a part of one processor.


def with_json(body: bytes) -> bytes:
    """As most are written: the standard library, a dict a record. AWS's runtime parses the event with it too."""
    out = []
    for records in json.loads(body)["records"].values():
        for record in records:
            row = json.loads(base64.b64decode(record["value"]))
            row["_partition"] = record["partition"]
            row["_offset"] = record["offset"]
            row["_timestamp"] = record["timestamp"] * 1000
            out.append(row)
    return parquet(pa.Table.from_pylist(out, schema=rows.ROW), True)


def with_orjson(body: bytes) -> bytes:
    """The event parsed by orjson, which wants a runtime of one's own, and the records by Arrow, all at once."""
    records = [record for records in orjson.loads(body)["records"].values() for record in records]
    lines = b"\n".join([binascii.a2b_base64(record["value"]) for record in records])
    table = pa.json.read_json(
        pa.BufferReader(lines),
        pa.json.ReadOptions(use_threads=False, block_size=1 << 20),
        pa.json.ParseOptions(explicit_schema=rows.RECORD, unexpected_field_behavior="ignore"),
    )
    kafka = pa.table([
        pa.array([record["partition"] for record in records], pa.int32()),
        pa.array([record["offset"] for record in records], pa.int64()),
        pa.array([record["timestamp"] * 1000 for record in records], rows.KAFKA.field("_timestamp").type),
    ], schema=rows.KAFKA)
    return parquet(pa.table(kafka.columns + table.select(rows.RECORD.names).columns, schema=rows.ROW), rows.DICTIONARIES)


def parquet(table: pa.Table, dictionaries) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", compression_level=1, use_dictionary=dictionaries)
    return out.getvalue()


VARIANTS = {"json": with_json, "orjson": with_orjson}


def function(variant) -> None:
    """What AWS's runtime does around a handler."""
    s3 = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT"])
    api = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"
    while True:
        with urllib.request.urlopen(f"{api}/next") as answer:
            request = answer.headers["lambda-runtime-aws-request-id"]
            body = answer.read()
        s3.put_object(Bucket=os.environ["S3_BUCKET"], Key=f"names/{request}.parquet", Body=variant(body))
        urllib.request.urlopen(f"{api}/{request}/response", b"null").close()


def rounds(variant, event: str, output: str) -> None:
    with open(event, "rb") as file:
        body = file.read()
    for _ in sys.stdin:
        begin = time.process_time()
        out = variant(body)
        taken = (time.process_time() - begin) * 1e3
        with open(output, "wb") as file:
            file.write(out)
        print(taken, flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["rounds", variant, event, output]:
            rounds(VARIANTS[variant], event, output)
        case [variant]:
            function(VARIANTS[variant])
        case _:
            sys.exit("usage: python_handler.py [rounds] VARIANT [EVENT OUTPUT]")
