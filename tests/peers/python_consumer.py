"""The peer that is a Python program: librdkafka reads, Arrow parses and encodes, boto3 uploads, and the offsets are committed behind that.

A crash between the two stores rows twice: at least once, as such programs are.
"""

import gzip
import io
import sys
import time

import boto3
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
from confluent_kafka import Consumer

import rows

BATCH = 100_000  # Rows of an object.


def main(brokers: str, topic: str, records: int, endpoint: str, bucket: str, form: str) -> None:
    encode = {"parquet": parquet, "ndjson": ndjson}[form]
    s3 = boto3.client("s3", endpoint_url=endpoint)
    consumer = Consumer({
        "bootstrap.servers": brokers,
        "group.id": f"python-{form}-{time.time_ns()}",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })
    consumer.subscribe([topic])
    seen = number = 0
    while seen < records:
        messages = []
        while len(messages) < BATCH and seen + len(messages) < records:
            messages += consumer.consume(BATCH - len(messages), timeout=0.2)
        for message in messages:
            if message.error():
                sys.exit(str(message.error()))
        s3.put_object(Bucket=bucket, Key=f"names/{number:06}.{form}", Body=encode(messages))
        consumer.commit(asynchronous=False)
        seen += len(messages)
        number += 1
    consumer.close()


def parquet(messages) -> bytes:
    lines = b"\n".join([message.value() for message in messages])
    table = pa.json.read_json(
        pa.BufferReader(lines),
        pa.json.ReadOptions(use_threads=False, block_size=1 << 20),
        pa.json.ParseOptions(explicit_schema=rows.RECORD, unexpected_field_behavior="ignore"),
    )
    columns = [
        pa.array([message.partition() for message in messages], pa.int32()),
        pa.array([message.offset() for message in messages], pa.int64()),
        pa.array([message.timestamp()[1] * 1000 for message in messages], rows.KAFKA.field("_timestamp").type),
    ]
    out = io.BytesIO()
    pq.write_table(
        pa.table(columns + table.select(rows.RECORD.names).columns, schema=rows.ROW),
        out, compression="zstd", compression_level=1, use_dictionary=rows.DICTIONARIES,
    )
    return out.getvalue()


def ndjson(messages) -> bytes:
    """Kafka's columns are put in front of the record's closing brace: nothing is parsed."""
    lines = [
        b'%s,"_partition":%d,"_offset":%d,"_timestamp":%d}\n'
        % (message.value()[:-1], message.partition(), message.offset(), message.timestamp()[1])
        for message in messages
    ]
    return gzip.compress(b"".join(lines), 1)


if __name__ == "__main__":
    brokers, topic, records, endpoint, bucket, form = sys.argv[1:]
    main(brokers, topic, int(records), endpoint, bucket, form)
