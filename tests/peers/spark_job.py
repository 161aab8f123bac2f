"""The peer that is Spark: Structured Streaming from Kafka to objects on S3, twice in one JVM, so that the second time it is warm.

Prints a line of JSON for each of the two: processor time of the JVM and of this program so far, and the wall time of the stretch.
"""

import json
import os
import sys
import time

STARTED = time.time()

from pyspark.sql import SparkSession
from pyspark.sql.functions import col, from_json

RECORD = (
    "name STRING, gender STRING, address STRING, city STRING, nation STRING, zip STRING, email STRING, latitude DOUBLE, longitude DOUBLE"
)
# A dictionary of them would only be begun and given up.
MANY_VALUES = ["_offset", "_timestamp", "name", "address", "zip", "email", "latitude", "longitude"]


def main(brokers: str, topic: str, endpoint: str, bucket: str, form: str, per_trigger: str, scratch: str) -> None:
    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.hadoop.parquet.compression.codec.zstd.level": "1",
        "spark.hadoop.zlib.compress.level": "BEST_SPEED",
        "spark.hadoop.fs.s3a.endpoint": endpoint,
        "spark.hadoop.fs.s3a.endpoint.region": "us-east-1",
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": "false",
        "spark.hadoop.fs.s3a.fast.upload.buffer": "bytebuffer",
        "spark.hadoop.fs.s3a.change.detection.mode": "none",
        "spark.hadoop.fs.s3a.create.performance": "true",
        "spark.hadoop.fs.s3a.aws.credentials.provider": "software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider",
        "spark.driver.memory": "2g",
        "spark.driver.extraJavaOptions": "-XX:+UseParallelGC",
    }
    for name in MANY_VALUES:
        settings[f"spark.hadoop.parquet.enable.dictionary#{name}"] = "false"
    builder = SparkSession.builder.master("local[2]").appName("names")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    jvm = spark._jvm.java.lang.ProcessHandle.current().pid()
    for stretch in ["cold", "warm"]:
        # The first one began with this process.
        began = STARTED if stretch == "cold" else time.time()
        run(spark, brokers, topic, f"s3a://{bucket}/{stretch}", form, per_trigger, f"{scratch}/checkpoint-{stretch}")
        print(json.dumps({"stretch": stretch, "cpu": cpu(jvm) + cpu(os.getpid()), "wall": time.time() - began}), flush=True)
    spark.stop()


def run(spark, brokers, topic, path, form, per_trigger, checkpoint) -> None:
    messages = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", brokers)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", per_trigger)
        .option("kafka.max.poll.records", "10000")
        .option("kafka.max.partition.fetch.bytes", "8388608")
        .option("kafka.receive.buffer.bytes", "1048576")
        .load()
    )
    table = messages.select(
        col("partition").alias("_partition"),
        col("offset").alias("_offset"),
        col("timestamp").alias("_timestamp"),
        from_json(col("value").cast("string"), RECORD).alias("record"),
    ).select("_partition", "_offset", "_timestamp", "record.*")
    writer = table.writeStream.format({"parquet": "parquet", "ndjson": "json"}[form]).outputMode("append")
    if form == "ndjson":
        writer = writer.option("compression", "gzip")
    query = (
        writer.option("path", path)
        .option("checkpointLocation", checkpoint)
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()


def cpu(pid: int) -> float:
    """Seconds of processor time of a process, without its children."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(*sys.argv[1:])
