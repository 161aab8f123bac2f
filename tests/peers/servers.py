"""What every peer reads from and writes to: a broker of Apache Kafka, and an S3 over a folder. Their processor time is not counted."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time

import boto3
from botocore.config import Config
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from measure import end, spawn

TOPIC = "names_topic"
# As many as this machine would be kept busy with, were there no other process on it; each is a poller's and a process's of ours.
PARTITIONS = 4
START = 60
KEY, SECRET = "bench", "bench-secret"
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"


def version(tool: str) -> str:
    """That which tests/cloud/tools.sh fetches, and has in the name of what it makes."""
    with open(f"{os.path.dirname(__file__)}/../cloud/tools.sh") as file:
        return re.search(rf"^{tool.upper()}=(\S+)", file.read(), re.MULTILINE)[1]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def until(ready, what: str, log: str) -> None:
    deadline = time.monotonic() + START
    while not ready():
        if time.monotonic() > deadline:
            sys.exit(f"bench-peers: {what} is not there after {START} s: look into {log}")
        time.sleep(0.1)


def listens(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


class Kafka:
    """One broker that is its own controller."""

    def __init__(self, tools: str, folder: str):
        port, controller = free_port(), free_port()
        self.brokers = f"127.0.0.1:{port}"
        home = f"{tools}/kafka-{version('kafka')}"
        os.makedirs(folder)
        with open(f"{folder}/server.properties", "w") as file:
            file.write(f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
""")
        java = ["java", "-Xmx512m", "-cp", f"{home}/*"]
        properties = f"{folder}/server.properties"
        subprocess.run(
            java + ["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER, "--config", properties],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        log = f"{folder}/log"
        with open(log, "wb") as out:
            self.process = spawn(java + ["kafka.Kafka", properties], stdout=out, stderr=out)
        until(lambda: listens(port), "Apache Kafka", log)

    def produce(self, records) -> None:
        """As our producer does; record n becomes offset n // PARTITIONS of partition n % PARTITIONS."""
        settings = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime", "retention.ms": "-1"}
        admin = AdminClient({"bootstrap.servers": self.brokers})
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1, config=settings)])[TOPIC].result()
        producer = Producer({
            "bootstrap.servers": self.brokers, "enable.idempotence": True, "acks": "all", "compression.type": "zstd", "linger.ms": 20,
        })
        for number, record in enumerate(records):
            while True:
                try:
                    producer.produce(TOPIC, record, partition=number % PARTITIONS)
                    break
                except BufferError:
                    producer.poll(0.1)
        left = producer.flush(START)
        if left:
            sys.exit(f"bench-peers: Apache Kafka has not taken {left} records in {START} s")

    def timestamps(self, records: int):
        """(partition, offset, milliseconds) of each."""
        consumer = Consumer({"bootstrap.servers": self.brokers, "group.id": "reference", "enable.auto.commit": False})
        consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)])
        seen, deadline = 0, time.monotonic() + START
        while seen < records:
            if time.monotonic() > deadline:
                sys.exit(f"bench-peers: Apache Kafka gives no more than {seen} of {records} records back")
            for message in consumer.consume(10_000, timeout=1):
                if not message.error():
                    seen, deadline = seen + 1, time.monotonic() + START
                    yield message.partition(), message.offset(), message.timestamp()[1]
        consumer.close()

    def stop(self) -> None:
        end(self.process)


class Store:
    """versitygw: S3's REST over a folder."""

    def __init__(self, tools: str, folder: str):
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self.folder = f"{folder}/buckets"
        os.makedirs(self.folder)
        program = f"{tools}/versitygw-{version('versitygw')}"
        log = f"{folder}/log"
        env = os.environ | {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
        with open(log, "wb") as out:
            command = [program, "--port", f"127.0.0.1:{port}", "--quiet", "posix", self.folder]
            self.process = spawn(command, env=env, stdout=out, stderr=out)
        until(lambda: listens(port), "versitygw", log)
        self.client = boto3.client("s3", endpoint_url=self.endpoint, config=Config(retries={"max_attempts": 1}), **CREDENTIALS)

    def make_bucket(self, bucket: str) -> None:
        self.client.create_bucket(Bucket=bucket)

    def objects(self, bucket: str):
        """(key, size) of everything."""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for found in page.get("Contents", []):
                yield found["Key"], found["Size"]

    def read(self, bucket: str, key: str) -> bytes:
        return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def forget(self, bucket: str) -> None:
        """Leaves no folder of an earlier run to be listed."""
        shutil.rmtree(f"{self.folder}/{bucket}", ignore_errors=True)

    def stop(self) -> None:
        end(self.process)


CREDENTIALS = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
