//! Changes of ledgers: shown before they are made, and made only on the version that was shown.

use bytes::Bytes;
use pipeline::lake::{Condition, Ledger, Put, PutRequest, Store};

use crate::{Error, text};

/// What a command will do.
#[derive(Debug, Default)]
pub struct Plan {
    /// What must be so before, for the reader to confirm.
    pub preconditions: Vec<String>,
    pub changes: Vec<Change>,
    /// Said where there is nothing to change, or beside the changes.
    pub remarks: Vec<String>,
}

#[derive(Debug)]
pub struct Change {
    pub key: String,
    pub before: Option<Ledger>,
    pub after: Ledger,
    /// The version that `before` was read from; `Absent` where there is none.
    pub condition: Condition,
}

impl Plan {
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        if !self.changes.is_empty() {
            let rows: Vec<_> = self.changes.iter().map(Change::cells).collect();
            text += &text::table(
                &["topic", "partition", "epoch", "next offset", "directory", "newest timestamp", "format"],
                &rows,
            );
        }
        for remark in &self.remarks {
            text += &format!("{remark}\n");
        }
        if !self.changes.is_empty() && !self.preconditions.is_empty() {
            text += "Before you go on:\n";
            for precondition in &self.preconditions {
                text += &format!("  - {precondition}\n");
            }
        }
        text
    }

    /// Writes the changes one by one. Stops at the first that meets another version than was shown.
    pub async fn apply<S: Store>(&self, store: &S) -> Result<u64, Error> {
        let mut written = 0;
        for change in &self.changes {
            let request = PutRequest {
                key: change.key.clone(),
                body: Bytes::from(change.after.to_json()),
                condition: change.condition.clone(),
                content_type: "application/json",
                metadata: Default::default(),
            };
            match store.put(request).await? {
                Put::Stored { .. } => written += 1,
                Put::Refused | Put::Missing => {
                    return Err(Error::stopped(format!(
                        "{} changed since it was read, and was left alone ({} written before it). Make sure that the event \
                         source is off, look with `freshet ledger show`, and run the command again",
                        change.key,
                        text::count(written, "ledger")
                    )));
                }
            }
        }
        Ok(written)
    }
}

impl Change {
    /// `before → after` where they differ.
    fn cells(&self) -> Vec<String> {
        let shown = |of: &dyn Fn(&Ledger) -> String| {
            let after = of(&self.after);
            match self.before.as_ref().map(of) {
                Some(before) if before == after => after,
                Some(before) => format!("{before} → {after}"),
                None => format!("none → {after}"),
            }
        };
        vec![
            self.after.topic.clone(),
            self.after.partition.to_string(),
            shown(&|l| l.epoch.to_string()),
            shown(&|l| l.next_offset.to_string()),
            shown(&|l| text::or_dash(l.directory)),
            shown(&|l| text::or_dash(l.newest_timestamp.map(text::time))),
            shown(&|l| l.format.clone()),
        ]
    }
}
