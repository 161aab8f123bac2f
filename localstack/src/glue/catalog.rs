//! The catalog itself: databases, tables and partitions, kept in one JSON file.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Refusal;

/// Glue's limits for one BatchCreatePartition, and for one page of GetPartitions.
const BATCH: usize = 100;
const PAGE: usize = 1000;

type Object = Map<String, Value>;
type Answer = Result<Value, Refusal>;

#[derive(Debug)]
pub(super) struct Catalog {
    file: PathBuf,
    content: Content,
}

/// What the file holds: names in lower case, as Glue keeps them.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    databases: BTreeMap<String, Database>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Database {
    input: Object,
    created: f64,
    #[serde(default)]
    tables: BTreeMap<String, Table>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Table {
    input: Object,
    created: f64,
    /// In the order of their values.
    #[serde(default)]
    partitions: Vec<Partition>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Partition {
    values: Vec<String>,
    input: Object,
    created: f64,
}

impl Catalog {
    pub(super) fn open(file: &Path) -> io::Result<Self> {
        let content = match std::fs::read(file) {
            Ok(content) => serde_json::from_slice(&content)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Content::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { file: file.to_owned(), content })
    }

    /// Does one operation; what it changes is in the file before it is answered.
    pub(super) fn call(&mut self, operation: &str, input: &Value) -> Answer {
        match operation {
            "CreateDatabase" => self.create_database(input).and_then(|answer| self.save(answer)),
            "GetDatabase" => self.get_database(input),
            "CreateTable" => self.create_table(input).and_then(|answer| self.save(answer)),
            "GetTable" => self.get_table(input),
            "CreatePartition" => self.create_partition(input).and_then(|answer| self.save(answer)),
            "BatchCreatePartition" => self.batch_create_partition(input).and_then(|answer| self.save(answer)),
            "GetPartition" => self.get_partition(input),
            "GetPartitions" => self.get_partitions(input),
            "DeletePartition" => self.delete_partition(input).and_then(|answer| self.save(answer)),
            _ => Err(Refusal::new(
                "UnknownOperationException",
                format!("`{operation}` is not in this stand-in for Glue: add it to localstack/src/glue/catalog.rs"),
            )),
        }
    }

    /// Writes the file anew and puts it in the old one's place, so that a kill leaves one of the two.
    fn save(&self, answer: Value) -> Answer {
        let write = || -> io::Result<()> {
            if let Some(folder) = self.file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let temporary = self.file.with_extension("tmp");
            std::fs::write(&temporary, serde_json::to_vec_pretty(&self.content)?)?;
            std::fs::rename(&temporary, &self.file)
        };
        match write() {
            Ok(()) => Ok(answer),
            Err(error) => Err(Refusal::new(
                "InternalServiceException",
                format!("{} cannot be written ({error}): check the folder and the free space", self.file.display()),
            )),
        }
    }

    fn create_database(&mut self, input: &Value) -> Answer {
        let input = object(input, "DatabaseInput")?;
        let name = name(&input, "Name")?;
        if self.content.databases.contains_key(&name) {
            return Err(already(format!("database {name}")));
        }
        self.content.databases.insert(name, Database { input, created: now(), tables: BTreeMap::new() });
        Ok(json!({}))
    }

    fn get_database(&self, input: &Value) -> Answer {
        let name = text(input, "Name")?;
        let database = self.database(&name)?;
        Ok(
            json!({"Database": described(&database.input, &[("Name", json!(name)), ("CreateTime", json!(database.created))])}),
        )
    }

    fn create_table(&mut self, input: &Value) -> Answer {
        let database_name = text(input, "DatabaseName")?;
        let input = object(input, "TableInput")?;
        let name = name(&input, "Name")?;
        let database =
            self.content.databases.get_mut(&database_name).ok_or_else(|| missing_database(&database_name))?;
        if database.tables.contains_key(&name) {
            return Err(already(format!("table {database_name}.{name}")));
        }
        database.tables.insert(name, Table { input, created: now(), partitions: Vec::new() });
        Ok(json!({}))
    }

    fn get_table(&self, input: &Value) -> Answer {
        let (database, name) = (text(input, "DatabaseName")?, text(input, "Name")?);
        let table = self.table(&database, &name)?;
        let added = [("Name", json!(name)), ("DatabaseName", json!(database)), ("CreateTime", json!(table.created))];
        Ok(json!({"Table": described(&table.input, &added)}))
    }

    fn create_partition(&mut self, input: &Value) -> Answer {
        let table = self.table_mut(&text(input, "DatabaseName")?, &text(input, "TableName")?)?;
        table.add(object(input, "PartitionInput")?)?;
        Ok(json!({}))
    }

    fn batch_create_partition(&mut self, input: &Value) -> Answer {
        let table = self.table_mut(&text(input, "DatabaseName")?, &text(input, "TableName")?)?;
        let list = input["PartitionInputList"].as_array().ok_or_else(|| invalid("PartitionInputList is missing"))?;
        if list.len() > BATCH {
            return Err(invalid(format!("{} partitions in one batch: send {BATCH} at most", list.len())));
        }
        let mut errors = Vec::new();
        for partition in list {
            let partition = partition.as_object().ok_or_else(|| invalid("a partition is no object"))?;
            if let Err(refusal) = table.add(partition.clone()) {
                errors.push(json!({
                    "PartitionValues": partition.get("Values"),
                    "ErrorDetail": {"ErrorCode": refusal.name, "ErrorMessage": refusal.message},
                }));
            }
        }
        Ok(json!({"Errors": errors}))
    }

    fn get_partition(&self, input: &Value) -> Answer {
        let (database, name) = (text(input, "DatabaseName")?, text(input, "TableName")?);
        let values = strings(&input["PartitionValues"])?;
        let table = self.table(&database, &name)?;
        let found = table.find(&values).map_err(|_| missing_partition(&values))?;
        Ok(json!({"Partition": table.partitions[found].described(&database, &name)}))
    }

    fn get_partitions(&self, input: &Value) -> Answer {
        let (database, name) = (text(input, "DatabaseName")?, text(input, "TableName")?);
        if input["Expression"].as_str().is_some_and(|expression| !expression.is_empty()) {
            return Err(invalid("this stand-in for Glue knows no expressions: filter the partitions yourself"));
        }
        let table = self.table(&database, &name)?;
        let page = match input["MaxResults"].as_u64() {
            None => PAGE,
            Some(results) => usize::try_from(results).unwrap_or(PAGE).clamp(1, PAGE),
        };
        // The token is the last partition of the page before, so that a page is right whatever was created meanwhile.
        let start = match input["NextToken"].as_str() {
            None => 0,
            Some(token) => {
                let last: Vec<String> =
                    serde_json::from_str(token).map_err(|_| invalid("NextToken is none of ours: start again"))?;
                table.partitions.partition_point(|partition| partition.values <= last)
            }
        };
        let end = table.partitions.len().min(start + page);
        // `start` comes from partition_point, so it is at most the length, and `end` is no less than it.
        let partitions = &table.partitions[start..end];
        let next =
            partitions.last().filter(|_| end < table.partitions.len()).map(|last| json!(last.values).to_string());
        let partitions: Vec<_> = partitions.iter().map(|partition| partition.described(&database, &name)).collect();
        let mut answer = json!({"Partitions": partitions});
        if let Some(next) = next {
            answer["NextToken"] = Value::String(next);
        }
        Ok(answer)
    }

    fn delete_partition(&mut self, input: &Value) -> Answer {
        let values = strings(&input["PartitionValues"])?;
        let table = self.table_mut(&text(input, "DatabaseName")?, &text(input, "TableName")?)?;
        let found = table.find(&values).map_err(|_| missing_partition(&values))?;
        table.partitions.remove(found);
        Ok(json!({}))
    }

    fn database(&self, name: &str) -> Result<&Database, Refusal> {
        self.content.databases.get(name).ok_or_else(|| missing_database(name))
    }

    fn table(&self, database: &str, name: &str) -> Result<&Table, Refusal> {
        self.database(database)?.tables.get(name).ok_or_else(|| missing_table(database, name))
    }

    fn table_mut(&mut self, database: &str, name: &str) -> Result<&mut Table, Refusal> {
        let tables = self.content.databases.get_mut(database).ok_or_else(|| missing_database(database))?;
        tables.tables.get_mut(name).ok_or_else(|| missing_table(database, name))
    }
}

impl Table {
    /// The place of a partition, or the one where it would be.
    fn find(&self, values: &[String]) -> Result<usize, usize> {
        self.partitions.binary_search_by(|partition| partition.values.as_slice().cmp(values))
    }

    fn add(&mut self, input: Object) -> Result<(), Refusal> {
        let values = strings(input.get("Values").unwrap_or(&Value::Null))?;
        let keys = self.input.get("PartitionKeys").and_then(Value::as_array).map_or(0, Vec::len);
        if values.len() != keys {
            return Err(invalid(format!(
                "{} partition values for {keys} partition keys: give one a key",
                values.len()
            )));
        }
        match self.find(&values) {
            Ok(_) => Err(already(format!("partition {values:?}"))),
            Err(place) => {
                self.partitions.insert(place, Partition { values, input, created: now() });
                Ok(())
            }
        }
    }
}

impl Partition {
    fn described(&self, database: &str, table: &str) -> Value {
        described(
            &self.input,
            &[("DatabaseName", json!(database)), ("TableName", json!(table)), ("CreationTime", json!(self.created))],
        )
    }
}

/// What was given, and what Glue adds to it.
fn described(input: &Object, added: &[(&str, Value)]) -> Value {
    let mut all = input.clone();
    all.extend(added.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Value::Object(all)
}

/// A name as Glue keeps it.
fn text(input: &Value, member: &str) -> Result<String, Refusal> {
    input[member].as_str().map(str::to_lowercase).ok_or_else(|| invalid(format!("{member} is missing")))
}

fn name(input: &Object, member: &str) -> Result<String, Refusal> {
    input
        .get(member)
        .and_then(Value::as_str)
        .map(str::to_lowercase)
        .ok_or_else(|| invalid(format!("{member} is missing")))
}

fn object(input: &Value, member: &str) -> Result<Object, Refusal> {
    input[member].as_object().cloned().ok_or_else(|| invalid(format!("{member} is missing")))
}

fn strings(value: &Value) -> Result<Vec<String>, Refusal> {
    serde_json::from_value(value.clone())
        .map_err(|_| invalid("the partition's values are missing, or no list of strings"))
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new("InvalidInputException", message)
}

fn already(what: String) -> Refusal {
    Refusal::new("AlreadyExistsException", format!("{what} already exists"))
}

fn missing_database(name: &str) -> Refusal {
    Refusal::new("EntityNotFoundException", format!("database {name} not found: create it first"))
}

fn missing_table(database: &str, name: &str) -> Refusal {
    Refusal::new("EntityNotFoundException", format!("table {database}.{name} not found: create it first"))
}

fn missing_partition(values: &[String]) -> Refusal {
    Refusal::new("EntityNotFoundException", format!("partition {values:?} not found: register it first"))
}

/// Seconds since 1970, as JSON 1.1 writes a time.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
