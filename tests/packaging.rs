//! The zips that `make build` makes, as Lambda takes them: small, one executable each, built for the processor that the
//! folder names, and asking no more of the operating system than Amazon Linux 2023 has.

use std::io::{Cursor, Read};

use object::read::elf::{ElfFile64, FileHeader};
use object::{Architecture, Object};
use zip::ZipArchive;

use crate::support::server::root;
use crate::support::zips;

/// 8 MB: a cold start fetches and unpacks it. Lambda itself would take 50.
const LARGEST_ZIP: usize = 8_000_000;
/// Amazon Linux 2023 keeps the version of glibc that it began with.
const GLIBC: [u32; 2] = [2, 34];
/// What comes with glibc and gcc. The loader is a library too where thread-local storage is used.
const LIBRARIES: [&str; 8] = [
    "libc.so.6",
    "libm.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "libgcc_s.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
];
const ARCHITECTURES: [(&str, Architecture); 2] = [("arm64", Architecture::Aarch64), ("x86_64", Architecture::X86_64)];

#[test]
fn the_zips_are_small_enough_and_run_on_amazon_linux_2023() {
    // This machine's must be there; the other processor's are looked at where somebody has built them.
    let _ = zips::folder();
    for (name, architecture) in ARCHITECTURES {
        for function in ["producer", "consumer"] {
            let path = root().join("target/lambda").join(name).join(function).join("bootstrap.zip");
            let Ok(zip) = std::fs::read(&path) else { continue };
            let checked = bootstrap(&zip).and_then(|file| runs(&file, architecture, &GLIBC));
            checked.unwrap_or_else(|problem| panic!("{name}/{function}/bootstrap.zip {problem}"));
            println!("{name}/{function}/bootstrap.zip: {} bytes", zip.len());
        }
    }
}

#[test]
fn a_newer_glibc_than_amazon_linux_has_is_refused() {
    for fits in ["GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_2.17", "GCC_3.0", "GCC_4.2.0"] {
        assert!(!too_new(fits, &GLIBC), "{fits}");
    }
    for newer in ["GLIBC_2.35", "GLIBC_2.34.1", "GLIBC_2.100", "GLIBC_3.0", "GLIBC_ABI_DT_RELR", "GLIBC_PRIVATE"] {
        assert!(too_new(newer, &GLIBC), "{newer}");
    }
}

/// These tests' own binary is a real one, linked on this machine against its glibc.
#[test]
fn a_real_binary_is_refused_for_what_it_needs() {
    let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let (_, here) = ARCHITECTURES.into_iter().find(|(name, _)| *name == zips::architecture()).unwrap();
    let (_, elsewhere) = ARCHITECTURES.into_iter().find(|(name, _)| *name != zips::architecture()).unwrap();
    assert_eq!(runs(&this, here, &[99]), Ok(()));
    let problem = runs(&this, here, &[2, 1]).unwrap_err();
    assert!(problem.contains("GLIBC_2."), "{problem}");
    let problem = runs(&this, elsewhere, &[99]).unwrap_err();
    assert!(problem.contains("is for"), "{problem}");
    assert!(runs(b"#!/bin/sh\n", here, &GLIBC).is_err());
}

#[test]
fn a_library_that_is_not_of_glibc_is_refused() {
    assert_eq!(foreign(["libc.so.6", "libm.so.6", "ld-linux-aarch64.so.1"].into_iter()), None);
    for library in ["libssl.so.3", "libz.so.1", "libstdc++.so.6", "librdkafka.so.1"] {
        assert_eq!(foreign(["libc.so.6", library].into_iter()), Some(library));
    }
}

#[test]
fn a_zip_that_lambda_cannot_start_is_refused() {
    assert_eq!(bootstrap(&zip_of(&[("bootstrap", 0o755)])).unwrap(), b"content");
    assert!(bootstrap(&zip_of(&[])).is_err(), "empty");
    assert!(bootstrap(&zip_of(&[("bootstrap", 0o755), ("more", 0o644)])).is_err(), "more than the binary");
    assert!(bootstrap(&zip_of(&[("producer", 0o755)])).is_err(), "another name");
    assert!(bootstrap(&zip_of(&[("bootstrap", 0o644)])).is_err(), "not executable");
    assert!(bootstrap(&vec![0; LARGEST_ZIP + 1]).unwrap_err().contains("bytes"), "too large");
}

/// The executable in a zip that Lambda can start and that is not too large.
fn bootstrap(zip: &[u8]) -> Result<Vec<u8>, String> {
    if zip.len() > LARGEST_ZIP {
        return Err(format!("has {} bytes, more than {LARGEST_ZIP}: look what has been added to it", zip.len()));
    }
    let mut archive = ZipArchive::new(Cursor::new(zip)).map_err(|e| format!("is no zip: {e}"))?;
    let names: Vec<_> = archive.file_names().map(str::to_owned).collect();
    if names != ["bootstrap"] {
        return Err(format!("holds {names:?} and not just `bootstrap`"));
    }
    let mut file = archive.by_index(0).map_err(|e| e.to_string())?;
    let mode = file.unix_mode().unwrap_or(0);
    if mode & 0o555 != 0o555 {
        return Err(format!("`bootstrap` has mode {mode:o}: Lambda's user cannot run it"));
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(|e| e.to_string())?;
    Ok(content)
}

/// Whether the loader of a system with this glibc would start the binary.
fn runs(binary: &[u8], architecture: Architecture, glibc: &[u32]) -> Result<(), String> {
    let file = ElfFile64::<object::Endianness>::parse(binary).map_err(|e| format!("holds no ELF file: {e}"))?;
    if file.architecture() != architecture {
        return Err(format!("is for {:?} and not for {architecture:?}", file.architecture()));
    }
    let libraries = file.import_libraries().map_err(|e| e.to_string())?;
    let libraries: Result<Vec<_>, _> = libraries.map(|library| library.map(|l| text(l.name()))).collect();
    let libraries = libraries.map_err(|e| e.to_string())?;
    if let Some(library) = foreign(libraries.iter().map(String::as_str)) {
        return Err(format!("needs {library}, which Lambda's Amazon Linux 2023 does not bring"));
    }
    match needed_versions(&file).map_err(|e| e.to_string())?.iter().find(|version| too_new(version, glibc)) {
        None => Ok(()),
        Some(version) => Err(format!("needs {version} where there is glibc {glibc:?}: build it with `make build`")),
    }
}

/// The versions that the loader insists on, those that no symbol carries among them (`GLIBC_ABI_DT_RELR`).
fn needed_versions(file: &ElfFile64<'_>) -> object::Result<Vec<String>> {
    let (endian, data) = (file.endian(), file.data());
    let sections = file.elf_header().sections(endian, data)?;
    let mut versions = Vec::new();
    let Some((mut libraries, strings)) = sections.gnu_verneed(endian, data)? else { return Ok(versions) };
    let strings = sections.strings(endian, data, strings)?;
    while let Some((_, mut needed)) = libraries.next()? {
        while let Some(version) = needed.next()? {
            versions.push(text(version.name(endian, strings)?));
        }
    }
    Ok(versions)
}

fn foreign<'a>(mut libraries: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    libraries.find(|library| !LIBRARIES.contains(library))
}

/// A version of glibc without a number stands for what only a newer loader can do, or for nothing that is promised.
fn too_new(version: &str, glibc: &[u32]) -> bool {
    let Some(number) = version.strip_prefix("GLIBC_") else { return false };
    let number: Result<Vec<u32>, _> = number.split('.').map(str::parse).collect();
    number.map_or(true, |number| number.as_slice() > glibc)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn zip_of(files: &[(&str, u32)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default().unix_permissions(*mode)).unwrap();
        std::io::Write::write_all(&mut zip, b"content").unwrap();
    }
    zip.finish().unwrap().into_inner()
}
