"""What a peer has stored, read back from the store and held against what was produced, value by value."""

import base64
import gzip
import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

import rows
from measure import Failed
from servers import PARTITIONS

ORDER = [("_partition", "ascending"), ("_offset", "ascending")]


def parse(lines: bytes, schema: pa.Schema) -> pa.Table:
    options = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    return pa.json.read_json(pa.BufferReader(lines), pa.json.ReadOptions(block_size=1 << 24), options)


def expected(lines: bytes, timestamps) -> pa.Table:
    """The rows that the records come to, in the order of their partitions and offsets."""
    record = parse(lines, rows.RECORD)
    partitions, offsets, times = (pa.array(values) for values in zip(*sorted(timestamps)))
    # See `Kafka.produce`.
    numbers = pc.add(pc.multiply(offsets, PARTITIONS), partitions)
    record = record.take(numbers)
    kafka = [partitions.cast(pa.int32()), offsets, times.cast(pa.timestamp("ms", "UTC")).cast(rows.KAFKA.field("_timestamp").type)]
    return pa.table(kafka + record.columns, names=rows.ROW.names)


def stored(objects) -> pa.Table:
    """Of pairs of key and content."""
    tables = []
    for key, content in objects:
        if key.endswith((".parquet", ".ndjson", ".json", ".gz", ".zst")) and content:
            tables.append(parquet(content) if content[:4] == b"PAR1" else ndjson(content))
    if not tables:
        raise Failed("it stored no object")
    return pa.concat_tables(tables).sort_by(ORDER)


def parquet(content: bytes) -> pa.Table:
    table = pq.read_table(pa.BufferReader(content))
    missing = set(rows.ROW.names) - set(table.column_names)
    if missing:
        raise Failed(f"its objects lack the columns {sorted(missing)}")
    return table.select(rows.ROW.names).cast(rows.ROW)


def ndjson(content: bytes) -> pa.Table:
    """A time is a text, or milliseconds."""
    lines = gzip.decompress(content)
    number = b'"_timestamp":"' not in lines[: lines.index(b"\n")]
    schema = rows.ROW.set(2, pa.field("_timestamp", pa.int64() if number else pa.string()))
    table = parse(lines, schema).select(rows.ROW.names)
    time = table["_timestamp"]
    if number:
        time = time.cast(pa.timestamp("ms", "UTC"))
    else:
        time = pc.utf8_replace_slice(pc.utf8_slice_codeunits(time, 0, 23), 10, 11, "T").cast(pa.timestamp("ms")).cast(pa.timestamp("ms", "UTC"))
    return table.set_column(2, rows.ROW.field(2), time.cast(rows.ROW.field(2).type))


def equal(found: pa.Table, wanted: pa.Table) -> None:
    """Fails with the first row that differs."""
    if found.num_rows != wanted.num_rows:
        raise Failed(f"it stored {found.num_rows} rows, and {wanted.num_rows} were produced")
    for name in rows.ROW.names:
        left, right = found[name].combine_chunks(), wanted[name].combine_chunks()
        same = pc.fill_null(pc.equal(left, right), False)
        both = pc.and_(pc.is_null(left), pc.is_null(right))
        differs = pc.index(pc.or_(same, both), False).as_py()
        if differs >= 0:
            raise Failed(f"column {name} of row {wanted.slice(differs, 1).to_pylist()} is {left[differs].as_py()!r}")


def of_event(body: bytes) -> pa.Table:
    """The rows that a Lambda event comes to."""
    records = [record for records in json.loads(body)["records"].values() for record in records]
    record = parse(b"\n".join(base64.b64decode(record["value"]) for record in records), rows.RECORD)
    kafka = [
        pa.array([record["partition"] for record in records], pa.int32()),
        pa.array([record["offset"] for record in records]),
        pa.array([record["timestamp"] * 1000 for record in records], rows.KAFKA.field("_timestamp").type),
    ]
    return pa.table(kafka + record.columns, names=rows.ROW.names).sort_by(ORDER)
