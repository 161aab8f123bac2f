//! The stand-in for Glue, through the client that the consumer uses.

use std::path::Path;

use aws_sdk_glue::Client;
use aws_sdk_glue::config::retry::RetryConfig;
use aws_sdk_glue::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_glue::error::ProvideErrorMetadata;
use aws_sdk_glue::types::{Column, DatabaseInput, PartitionInput, StorageDescriptor, TableInput};

use super::*;

fn client(glue: &GlueServer) -> Client {
    let config = aws_sdk_glue::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("a", "b", None, None, "test"))
        .endpoint_url(glue.endpoint())
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

fn partition(hour: usize) -> PartitionInput {
    let location = format!("s3://lake/names/dt=2026-11-23/hour={hour:04}/");
    PartitionInput::builder()
        .values("2026-11-23")
        .values(format!("{hour:04}"))
        .storage_descriptor(StorageDescriptor::builder().location(location).build())
        .parameters("made_by", "a test")
        .build()
}

async fn with_table(file: &Path) -> (GlueServer, Client) {
    let glue = GlueServer::start(file).await.unwrap();
    let client = client(&glue);
    let database = DatabaseInput::builder().name("Freshet").build().unwrap();
    client.create_database().database_input(database).send().await.unwrap();
    let key = |name: &str| Column::builder().name(name).r#type("string").build().unwrap();
    let table = TableInput::builder()
        .name("names")
        .storage_descriptor(StorageDescriptor::builder().columns(key("email")).location("s3://lake/names/").build())
        .partition_keys(key("dt"))
        .partition_keys(key("hour"))
        .build()
        .unwrap();
    client.create_table().database_name("freshet").table_input(table).send().await.unwrap();
    (glue, client)
}

#[tokio::test]
async fn a_table_comes_back_as_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let (_glue, client) = with_table(&folder.path().join("glue.json")).await;
    let answer = client.get_table().database_name("freshet").name("names").send().await.unwrap();
    let table = answer.table().unwrap();
    assert_eq!(table.partition_keys().iter().map(Column::name).collect::<Vec<_>>(), ["dt", "hour"]);
    assert_eq!(table.storage_descriptor().unwrap().columns()[0].r#type(), Some("string"));
    assert!(table.create_time().is_some());

    let missing = client.get_table().database_name("freshet").name("other").send().await.unwrap_err();
    assert!(missing.into_service_error().is_entity_not_found_exception());
    let table = TableInput::builder().name("names").build().unwrap();
    let again = client.create_table().database_name("freshet").table_input(table).send().await.unwrap_err();
    assert!(again.into_service_error().is_already_exists_exception());
}

#[tokio::test]
async fn a_partition_is_registered_once_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let (_glue, client) = with_table(&folder.path().join("glue.json")).await;
    let create =
        || client.create_partition().database_name("freshet").table_name("names").partition_input(partition(5));
    let get = |hour: &str| {
        let get = client.get_partition().database_name("freshet").table_name("names");
        get.partition_values("2026-11-23").partition_values(hour)
    };
    assert!(get("0005").send().await.unwrap_err().into_service_error().is_entity_not_found_exception());
    create().send().await.unwrap();
    assert!(create().send().await.unwrap_err().into_service_error().is_already_exists_exception());
    let found = get("0005").send().await.unwrap();
    let found = found.partition().unwrap();
    assert_eq!(found.values(), ["2026-11-23", "0005"]);
    let location = found.storage_descriptor().unwrap().location();
    assert_eq!(location, Some("s3://lake/names/dt=2026-11-23/hour=0005/"));
    assert_eq!(found.parameters().unwrap()["made_by"], "a test");

    let one_value = PartitionInput::builder().values("2026-11-23").build();
    let error =
        client.create_partition().database_name("freshet").table_name("names").partition_input(one_value).send().await;
    assert!(error.unwrap_err().into_service_error().is_invalid_input_exception());
}

#[tokio::test]
async fn a_batch_registers_what_it_can_and_names_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (_glue, client) = with_table(&folder.path().join("glue.json")).await;
    let batch = |hours: std::ops::Range<usize>| {
        let batch = client.batch_create_partition().database_name("freshet").table_name("names");
        batch.set_partition_input_list(Some(hours.map(partition).collect())).send()
    };
    assert!(batch(0..3).await.unwrap().errors().is_empty());
    let answer = batch(2..5).await.unwrap();
    assert_eq!(answer.errors().len(), 1);
    assert_eq!(answer.errors()[0].partition_values(), ["2026-11-23", "0002"]);
    assert_eq!(answer.errors()[0].error_detail().unwrap().error_code(), Some("AlreadyExistsException"));
    assert!(batch(100..201).await.is_err());
}

#[tokio::test]
async fn pages_hold_every_partition_once_and_the_file_keeps_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("catalog/glue.json");
    let (glue, mut client_now) = with_table(&file).await;
    for hundred in 0..12 {
        let partitions = (hundred * 100..hundred * 100 + 100).map(partition).collect();
        let batch = client_now.batch_create_partition().database_name("freshet").table_name("names");
        batch.set_partition_input_list(Some(partitions)).send().await.unwrap();
    }
    glue.stop().await;
    let glue = GlueServer::start(&file).await.unwrap();
    client_now = client(&glue);
    for page in [None, Some(7), Some(1000)] {
        let pages = client_now.get_partitions().database_name("freshet").table_name("names").set_max_results(page);
        let mut pages = pages.into_paginator().send();
        let mut hours = Vec::new();
        while let Some(page) = pages.next().await {
            hours.extend(page.unwrap().partitions().iter().map(|partition| partition.values()[1].clone()));
        }
        assert_eq!(hours, (0..1200).map(|hour| format!("{hour:04}")).collect::<Vec<_>>());
    }
    let delete = client_now.delete_partition().database_name("freshet").table_name("names");
    delete.partition_values("2026-11-23").partition_values("0003").send().await.unwrap();
    let get = client_now.get_partition().database_name("freshet").table_name("names");
    assert!(get.partition_values("2026-11-23").partition_values("0003").send().await.is_err());
}

#[tokio::test]
async fn a_catalog_that_is_down_answers_500_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (glue, client) = with_table(&folder.path().join("glue.json")).await;
    let create =
        || client.create_partition().database_name("freshet").table_name("names").partition_input(partition(5));
    glue.set_down(true);
    let calls = glue.calls();
    let error = create().send().await.unwrap_err();
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 500);
    assert_eq!(error.code(), Some("InternalServiceException"));
    assert_eq!(glue.calls(), calls + 1);
    glue.set_down(false);
    create().send().await.unwrap();
}

#[tokio::test]
async fn an_operation_that_is_not_there_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (_glue, client) = with_table(&folder.path().join("glue.json")).await;
    let error = client.get_crawlers().send().await.unwrap_err();
    assert_eq!(error.code(), Some("UnknownOperationException"));
}
