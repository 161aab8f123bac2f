//! Objects as plain files of a folder, each written and replaced in one step.
//!
//! An object's metadata lies in a sidecar file, in a folder beside the bucket's. Two files cannot be renamed in one
//! step, so the sidecar is written first and holds two versions, the coming one and the present one; which of them the
//! object is tells its size and modification time, and where these leave doubt, its MD5. A crash between the two
//! renames therefore leaves the old object with its old metadata, or the new one with its new, never a mixture.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use s3s::crypto::{Checksum, Md5};
use serde::{Deserialize, Serialize};

/// Beside the buckets: the sidecars, `.objects/<bucket>/<key>.json`, and the files being written, `.objects/.tmp/`.
/// No bucket's name begins with a dot, so nothing in here is ever listed.
const SIDECARS: &str = ".objects";

/// A file being written that is older belongs to a server that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Keys share this many locks by their hash: enough that two keys seldom meet.
const LOCKS: usize = 256;

/// A file name has 255 bytes at most on the usual file systems, and the sidecar's is longer by its extension.
const LONGEST_SEGMENT: usize = 250;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the bucket does not exist: create it first")]
    NoSuchBucket,
    #[error("the key does not exist")]
    NoSuchKey,
    #[error("the condition of the request does not hold: read the object again")]
    Precondition,
    #[error(
        "`{0}` cannot be a file of the embedded S3: use a key without `.`, `..` or empty segments, whose parents are no objects"
    )]
    Unstorable(String),
    #[error("the embedded S3 cannot reach its folder ({0}): check its permissions and the free space")]
    Io(#[from] io::Error),
}

/// What a PUT asks of the object that is there.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    None,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match: *`
    Present,
    /// `If-Match: "<etag>"`
    Etag(String),
}

/// What a client says about an object, and gets back as it was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// `x-amz-meta-*`, without the prefix.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub user: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub size: u64,
    pub modified: SystemTime,
    /// The MD5 in hex, as S3 computes it for an object written by one PUT.
    pub etag: String,
    pub attributes: Attributes,
}

#[derive(Serialize, Deserialize)]
struct Sidecar {
    /// The version that was written last, and the one that it replaced.
    versions: Vec<Version>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Version {
    etag: String,
    size: u64,
    /// Nanoseconds since 1970, as the file system keeps them.
    modified: u128,
    attributes: Attributes,
}

/// The folder: `<root>/<bucket>/<key>`.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    locks: Vec<Mutex<()>>,
    written: AtomicU64,
}

impl Folder {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let temporary = root.join(SIDECARS).join(".tmp");
        fs::create_dir_all(&temporary)?;
        for file in fs::read_dir(&temporary)? {
            let file = file?;
            let age = file.metadata().and_then(|metadata| metadata.modified()).map(|modified| modified.elapsed());
            if matches!(age, Ok(Ok(age)) if age > ABANDONED) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(Self {
            root: root.to_owned(),
            locks: (0..LOCKS).map(|_| Mutex::default()).collect(),
            written: AtomicU64::new(0),
        })
    }

    pub(super) fn create_bucket(&self, bucket: &str) -> io::Result<()> {
        fs::create_dir_all(self.bucket_path(bucket))
    }

    pub(super) fn has_bucket(&self, bucket: &str) -> bool {
        self.bucket_path(bucket).is_dir()
    }

    pub(super) fn bucket_path(&self, bucket: &str) -> PathBuf {
        self.root.join(bucket)
    }

    /// Writes an object if the condition holds, and answers its ETag. The check and the write are one step for all who
    /// go through this folder.
    pub(super) fn put(
        &self,
        bucket: &str,
        key: &str,
        condition: &Condition,
        content: &[u8],
        attributes: Attributes,
    ) -> Result<String, Error> {
        self.need_bucket(bucket)?;
        let path = self.path(bucket, key).ok_or_else(|| Error::Unstorable(key.to_owned()))?;
        let etag = md5(content);
        // The long part, outside the lock.
        let object = self.write_temporary(content)?;
        let size = content.len() as u64;

        let _held = self.lock(bucket, key);
        let present = match self.entry(bucket, key) {
            Ok((entry, _)) => Some(entry),
            Err(Error::NoSuchKey) => None,
            Err(error) => return Err(error),
        };
        match (condition, &present) {
            (Condition::None, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => {}
            (Condition::Etag(expected), Some(entry)) if *expected == entry.etag => {}
            // As the real one: a condition on what is there, where nothing is.
            (Condition::Present | Condition::Etag(_), None) => return Err(Error::NoSuchKey),
            (Condition::Absent | Condition::Etag(_), Some(_)) => return Err(Error::Precondition),
        }
        let mut versions = vec![Version { etag: etag.clone(), size, modified: object.modified()?, attributes }];
        versions.extend(present.map(|entry| Version {
            etag: entry.etag,
            size: entry.size,
            modified: nanoseconds(entry.modified),
            attributes: entry.attributes,
        }));
        let sidecar = serde_json::to_vec_pretty(&Sidecar { versions }).map_err(io::Error::other)?;
        self.write_temporary(&sidecar)?.rename(&self.sidecar_path(bucket, key), key)?;
        object.rename(&path, key)?;
        Ok(etag)
    }

    pub(super) fn head(&self, bucket: &str, key: &str) -> Result<Entry, Error> {
        self.need_bucket(bucket)?;
        let _held = self.lock(bucket, key);
        self.entry(bucket, key).map(|(entry, _)| entry)
    }

    /// The object, open for [`read`]: what is read is this version, whatever is written meanwhile.
    pub(super) fn open_object(&self, bucket: &str, key: &str) -> Result<(Entry, File), Error> {
        self.need_bucket(bucket)?;
        let _held = self.lock(bucket, key);
        self.entry(bucket, key)
    }

    /// Deletes an object; that there is none is success, as with the real one.
    pub(super) fn delete(&self, bucket: &str, key: &str) -> Result<(), Error> {
        self.need_bucket(bucket)?;
        let Some(path) = self.path(bucket, key) else { return Ok(()) };
        if path.is_dir() {
            return Ok(());
        }
        let _held = self.lock(bucket, key);
        // The object first: a sidecar without an object is nothing.
        for path in [path, self.sidecar_path(bucket, key)] {
            match fs::remove_file(path) {
                Err(error) if !is_absent(&error) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn need_bucket(&self, bucket: &str) -> Result<(), Error> {
        if self.has_bucket(bucket) { Ok(()) } else { Err(Error::NoSuchBucket) }
    }

    /// Reads the object's sidecar; the caller holds the key's lock.
    fn entry(&self, bucket: &str, key: &str) -> Result<(Entry, File), Error> {
        let path = self.path(bucket, key).ok_or(Error::NoSuchKey)?;
        let mut file =
            File::open(path).map_err(|error| if is_absent(&error) { Error::NoSuchKey } else { error.into() })?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Error::NoSuchKey);
        }
        let (size, modified) = (metadata.len(), metadata.modified()?);
        let mut versions = match fs::read(self.sidecar_path(bucket, key)) {
            // A sidecar that cannot be read is one that somebody edited: the object still stands, without metadata.
            Ok(sidecar) => serde_json::from_slice::<Sidecar>(&sidecar).map(|it| it.versions).unwrap_or_default(),
            Err(error) if is_absent(&error) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        versions.retain(|version| version.size == size);
        let same_time = |version: &Version| version.modified == nanoseconds(modified);
        let version = match versions.iter().filter(|version| same_time(version)).count() {
            1 => versions.into_iter().find(same_time),
            // A copy of the folder that lost the times, a clock that is too coarse, or a file put here by hand.
            _ => {
                let etag = md5(&read(&mut file, 0..size)?);
                let known = versions.into_iter().find(|version| version.etag == etag);
                Some(known.unwrap_or(Version { etag, size, modified: 0, attributes: Attributes::default() }))
            }
        };
        let version = version.ok_or(Error::NoSuchKey)?;
        Ok((Entry { size, modified, etag: version.etag, attributes: version.attributes }, file))
    }

    /// The file of a key, or nothing where the key cannot be one.
    fn path(&self, bucket: &str, key: &str) -> Option<PathBuf> {
        let storable = |segment: &str| {
            !matches!(segment, "" | "." | "..") && segment.len() <= LONGEST_SEGMENT && !segment.contains('\0')
        };
        key.split('/').all(storable).then(|| self.bucket_path(bucket).join(key))
    }

    fn sidecar_path(&self, bucket: &str, key: &str) -> PathBuf {
        self.root.join(SIDECARS).join(bucket).join(format!("{key}.json"))
    }

    fn lock(&self, bucket: &str, key: &str) -> MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((bucket, key));
        // The remainder is below LOCKS, and nothing is left half done that a panic could have poisoned.
        self.locks[hash as usize % LOCKS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_temporary(&self, content: &[u8]) -> io::Result<Temporary> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(SIDECARS).join(".tmp").join(format!("{}-{number}", std::process::id()));
        let mut temporary = Temporary { file: File::create(&path)?, path };
        temporary.file.write_all(content)?;
        Ok(temporary)
    }
}

/// A file that is not yet in its place, and goes away unless it gets there.
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    fn modified(&self) -> io::Result<u128> {
        Ok(nanoseconds(self.file.metadata()?.modified()?))
    }

    fn rename(self, to: &Path, key: &str) -> Result<(), Error> {
        let unstorable = |error: io::Error| match error.kind() {
            ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::AlreadyExists => {
                Error::Unstorable(key.to_owned())
            }
            _ => Error::Io(error),
        };
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(unstorable)?;
        }
        fs::rename(&self.path, to).map_err(unstorable)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename it is no longer there, which is the point.
        let _ = fs::remove_file(&self.path);
    }
}

/// Reads a part of an object.
pub(super) fn read(file: &mut File, range: Range<u64>) -> io::Result<Vec<u8>> {
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut content = vec![0; length];
    file.seek(SeekFrom::Start(range.start))?;
    file.read_exact(&mut content)?;
    Ok(content)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn md5(content: &[u8]) -> String {
    let mut hash = Md5::new();
    hash.update(content);
    hash.finalize().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn nanoseconds(time: SystemTime) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos()
}
