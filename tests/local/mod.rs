//! The stack of docker-compose.yaml without a Docker engine. The file is read by the real `docker compose`; what its services run is run
//! here, by the same command lines, environments and health checks, against MiniStack and the embedded broker. LocalStack itself has
//! `infra/` applied to it as far as it goes without containers. What only images can show is not shown.

mod compose;
mod host;
mod path;
mod script;
