"""The rows that every peer stores: Kafka's partition, offset and timestamp, and the dataset's columns."""

import pyarrow as pa

TEXT = ["name", "gender", "address", "city", "nation", "zip", "email"]
NUMBERS = ["latitude", "longitude"]
# What a record holds.
RECORD = pa.schema([pa.field(name, pa.string()) for name in TEXT] + [pa.field(name, pa.float64()) for name in NUMBERS])
KAFKA = pa.schema([
    pa.field("_partition", pa.int32()),
    pa.field("_offset", pa.int64()),
    pa.field("_timestamp", pa.timestamp("us", "UTC")),
])
ROW = pa.unify_schemas([KAFKA, RECORD])
# Few values, many rows. Of the others a dictionary would only be begun and given up.
DICTIONARIES = ["_partition", "gender", "city", "nation"]
