//! ListObjectsV2 over a folder: keys in the order of their bytes, a page at a time, grouped by a delimiter.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// What a client asks for.
#[derive(Debug, Default)]
pub(super) struct Query<'a> {
    pub prefix: &'a str,
    pub delimiter: Option<&'a str>,
    /// Keys up to and including this one are left out, before they are grouped.
    pub start_after: Option<&'a str>,
    /// The last item of the page before: as S3's, opaque to the client.
    pub token: Option<&'a str>,
    pub max_items: usize,
}

#[derive(Debug, PartialEq)]
pub(super) enum Item {
    Key(String),
    /// The part of one or more keys up to the delimiter.
    CommonPrefix(String),
}

impl Item {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Key(name) | Self::CommonPrefix(name) => name,
        }
    }
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Page {
    pub items: Vec<Item>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// One page of a bucket's keys.
pub(super) fn page(bucket: &Path, query: &Query) -> io::Result<Page> {
    let mut keys = Vec::new();
    // Only what lies in the prefix's last whole directory can begin with the prefix.
    let directory = query.prefix.rfind('/').map_or("", |slash| &query.prefix[..=slash]);
    if !directory.split('/').any(|segment| matches!(segment, "." | "..")) && !directory.starts_with('/') {
        collect(&bucket.join(directory), directory, query, &mut keys)?;
    }
    keys.sort_unstable();
    Ok(cut(keys, query))
}

/// Adds the keys below a directory; `under` is the directory as a part of the key, with its slash.
fn collect(directory: &Path, under: &str, query: &Query, keys: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        // A name that is not UTF-8 was not written by S3: keys are UTF-8.
        let Some(name) = name.to_str() else { continue };
        let mut key = format!("{under}{name}");
        if entry.file_type()?.is_dir() {
            key.push('/');
            if key.starts_with(query.prefix) || query.prefix.starts_with(&key) {
                collect(&entry.path(), &key, query, keys)?;
            }
        } else if key.starts_with(query.prefix) && query.start_after.is_none_or(|start| key.as_str() > start) {
            keys.push(key);
        }
    }
    Ok(())
}

/// Groups sorted keys and cuts them to a page.
fn cut(keys: Vec<String>, query: &Query) -> Page {
    let mut page = Page::default();
    if query.max_items == 0 {
        return page;
    }
    for key in keys {
        let group = query.delimiter.filter(|delimiter| !delimiter.is_empty()).and_then(|delimiter| {
            let rest = &key[query.prefix.len()..];
            rest.find(delimiter).map(|at| key[..query.prefix.len() + at + delimiter.len()].to_owned())
        });
        let item = group.map_or_else(|| Item::Key(key), Item::CommonPrefix);
        let seen = page.items.last() == Some(&item) || query.token.is_some_and(|token| item.name() <= token);
        if seen {
            continue;
        }
        if page.items.len() == query.max_items {
            page.next = page.items.last().map(|last| last.name().to_owned());
            break;
        }
        page.items.push(item);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(page: &Page) -> Vec<&str> {
        page.items.iter().map(Item::name).collect()
    }

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn a_delimiter_groups_what_lies_behind_it() {
        let query = Query { prefix: "p/", delimiter: Some("/"), max_items: 10, ..Query::default() };
        let page = cut(keys(&["p/a/1", "p/a/2", "p/b", "p/c/1"]), &query);
        assert_eq!(names(&page), ["p/a/", "p/b", "p/c/"]);
        assert_eq!(page.next, None);
    }

    #[test]
    fn pages_of_any_size_give_every_item_once() {
        let all = keys(&["a/1", "a/2", "b", "c/1", "c/2", "d"]);
        for max_items in 1..8 {
            let (mut token, mut seen) = (None::<String>, Vec::new());
            loop {
                let query = Query { delimiter: Some("/"), token: token.as_deref(), max_items, ..Query::default() };
                let page = cut(all.clone(), &query);
                seen.extend(names(&page).iter().map(ToString::to_string));
                match page.next {
                    Some(next) => token = Some(next),
                    None => break,
                }
            }
            assert_eq!(seen, ["a/", "b", "c/", "d"], "pages of {max_items}");
        }
    }
}
