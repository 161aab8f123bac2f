//! Every directory with objects is registered, at the right place.

use std::collections::BTreeMap;

use pipeline::lake::Directory;

use super::{Finding, Inventory, Kind, Said};
use crate::catalog::Registered;
use crate::text::count;

pub(super) fn check(inventory: &Inventory, registered: &[Registered], said: &mut Said) {
    let mut with_objects: BTreeMap<Directory, u64> = BTreeMap::new();
    for object in &inventory.objects {
        *with_objects.entry(object.key.directory).or_default() += 1;
    }
    let known: BTreeMap<&[String], &str> =
        registered.iter().map(|r| (r.values.as_slice(), r.location.as_str())).collect();
    let target = &inventory.target;
    for (directory, objects) in &with_objects {
        let expected = format!("s3://{}/{}", target.bucket, target.layout.directory(*directory));
        match known.get(directory.values().as_slice()) {
            None => {
                let message = format!("{directory} holds {} and is not registered", count(*objects, "object"));
                said.findings.push(Finding::new(Kind::NotRegistered, None, message));
            }
            Some(location) if location.trim_end_matches('/') != expected.trim_end_matches('/') => {
                let message = format!("{directory} is registered at {location}, expected {expected}");
                said.findings.push(Finding::new(Kind::WrongLocation, None, message));
            }
            Some(_) => {}
        }
    }
    let empty = registered.iter().filter(|r| !with_objects.keys().any(|d| d.values().as_slice() == r.values)).count();
    if empty > 0 {
        let directories = if empty == 1 { "directory holds" } else { "directories hold" };
        said.notes.push(format!(
            "{empty} registered {directories} no object: registered before the first object, or emptied"
        ));
    }
}
