# infra/ on one machine: LocalStack, and Kafka brought along. provision.sh adds what depends on the machine.
name                        = "freshet"
create_cluster              = false
create_event_source_mapping = false # Free LocalStack has none for Kafka: `freshet event-source` polls instead.
create_catalog              = false # Nor has it Glue and Athena: `make local-query` reads the lake.
force_destroy               = true
batching_window_seconds     = 2 # Rows to look at are worth more here than large objects.
