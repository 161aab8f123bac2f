//! The ledgers against the topic: what is still to be stored, and what cannot be any more.

use std::collections::BTreeMap;

use super::{Inventory, Kind, Ledgers, PartitionReport, Place, Said};
use crate::kafka::Watermarks;
use crate::text::count;

pub(super) fn check(
    inventory: &Inventory,
    watermarks: &BTreeMap<i32, Watermarks>,
    ledgers: &Ledgers<'_>,
    partitions: &mut Vec<PartitionReport>,
    said: &mut Said,
) {
    let topic = inventory.target.topic.as_str();
    for (&partition, &Watermarks { low, high }) in watermarks {
        let Some(ledger) = ledgers.get(&(topic, partition)) else {
            // Nothing stored yet, unless the ledger is lost or unreadable, which is said elsewhere.
            let lag = Some(high - low);
            match partitions.iter_mut().find(|row| row.topic == topic && row.partition == partition) {
                Some(row) => row.lag = lag,
                None => {
                    partitions.push(PartitionReport { topic: topic.to_owned(), partition, lag, ..Default::default() })
                }
            }
            continue;
        };
        let place = Place { topic: topic.to_owned(), partition, epoch: Some(ledger.epoch) };
        let next = ledger.next_offset;
        if next > high {
            let message = format!("the ledger's next offset is {next}, and the topic ends at {high}");
            said.find(Kind::TopicMadeAnew, &place, message);
        }
        if low > next {
            let expired = count(low.abs_diff(next), "offset");
            said.find(
                Kind::Expired,
                &place,
                format!("{expired} from {next} on left the topic before they were stored"),
            );
        }
        let row = partitions
            .iter_mut()
            .find(|row| row.topic == topic && row.partition == partition && row.epoch == Some(ledger.epoch));
        let Some(row) = row else { continue };
        row.lag = Some((high - next).max(0));
        // The event source starts with the oldest record, and `low` only ever grows.
        if let Some(from) = row.from.filter(|from| low < *from && next <= high) {
            let message = format!("offsets {low}–{} are in the topic and lie in no object", from - 1);
            said.find(Kind::Hole, &place, message);
        }
    }
    partitions.sort_by(|a, b| (&a.topic, a.partition, a.epoch).cmp(&(&b.topic, b.partition, b.epoch)));
    for ((of, partition), ledger) in ledgers {
        if *of == topic && !watermarks.contains_key(partition) {
            let place = Place { topic: topic.to_owned(), partition: *partition, epoch: Some(ledger.epoch) };
            said.find(Kind::TopicMadeAnew, &place, "there is a ledger, and the topic has no such partition");
        }
    }
}
