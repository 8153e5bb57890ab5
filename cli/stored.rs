//! How `quorate load` keeps a file in a volume, and `quorate cat` finds it.
//!
//! A first page says how long the file is and what its SHA-256 is; the file's bytes follow, 8 KiB a
//! page. The pages are far from those that people number by hand.

use std::fmt::Write as _;

use quorate_core::id::PageId;
use quorate_node::payload::PAGE_BYTES_MAX;

/// The page that says what is stored.
pub(crate) const MANIFEST: PageId = PageId::new(1 << 40);

/// The most bytes of a file: its pages have numbers up to twice that of the first.
pub(crate) const FILE_BYTES_MAX: u64 = (1 << 40) * PAGE_BYTES_MAX as u64;

const COMPLETE: &[u8; 8] = b"QRTFILE\x01";
const LOADING: &[u8; 8] = b"QRTFILE\x00";

/// What is stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) bytes: u64,
    pub(crate) digest: [u8; 32],
}

/// What the first page says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stored {
    File(Manifest),
    /// A load has begun and not ended.
    Loading,
    Nothing,
    /// Something else wrote the page.
    Unknown,
}

/// Returns the first page while a file is being loaded.
pub(crate) fn loading() -> Vec<u8> {
    LOADING.to_vec()
}

impl Manifest {
    /// Returns the first page of a whole file.
    pub(crate) fn to_page(self) -> Vec<u8> {
        [COMPLETE.as_slice(), &self.bytes.to_le_bytes(), &self.digest].concat()
    }

    pub(crate) const fn pages(self) -> u64 {
        self.bytes.div_ceil(PAGE_BYTES_MAX as u64)
    }
}

/// Returns what a first page says.
pub(crate) fn parse(page: &[u8]) -> Stored {
    if page.is_empty() {
        return Stored::Nothing;
    }
    if page == LOADING {
        return Stored::Loading;
    }
    let file = page.strip_prefix(COMPLETE).and_then(|rest| {
        let (bytes, digest) = rest.split_first_chunk::<8>()?;
        let bytes = u64::from_le_bytes(*bytes);
        Some(Manifest { bytes, digest: digest.try_into().ok()? })
    });
    match file {
        Some(manifest) if manifest.bytes <= FILE_BYTES_MAX => Stored::File(manifest),
        Some(_) | None => Stored::Unknown,
    }
}

/// Returns the page of the file's bytes from `index` times 8192 on.
pub(crate) const fn page(index: u64) -> PageId {
    PageId::new(MANIFEST.get().saturating_add(1).saturating_add(index))
}

/// Returns a digest as people compare it.
pub(crate) fn shown(digest: &[u8; 32]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What isn't a whole file must not be taken for one.
    #[test]
    fn only_a_whole_manifest_is_a_file() {
        let manifest = Manifest { bytes: 8193, digest: [7; 32] };
        assert_eq!(manifest.pages(), 2);
        let page = manifest.to_page();
        assert_eq!(parse(&page), Stored::File(manifest));
        assert_eq!(page.split_last().map(|(_, short)| parse(short)), Some(Stored::Unknown));
        assert_eq!(parse(&[page.as_slice(), b"x"].concat()), Stored::Unknown);
        assert_eq!(parse(b""), Stored::Nothing);
        assert_eq!(parse(&loading()), Stored::Loading);
        let endless = Manifest { bytes: u64::MAX, digest: [7; 32] };
        assert_eq!(parse(&endless.to_page()), Stored::Unknown);
    }
}
