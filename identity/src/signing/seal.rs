//! How a root's key rests: sealed with a wrapping key that is never in the same place.
//!
//! AES-256-GCM with a random nonce before the ciphertext. What belongs to the key (its certificate) is authenticated
//! along with it, so a sealed key cannot be moved under another root.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};

const KEY_BYTES: usize = 32;

/// Seals keys.
pub struct WrappingKey(RandomizedNonceKey);

/// Why sealing or unsealing fails.
#[derive(Debug, thiserror::Error)]
pub enum SealFault {
    /// The file cannot be read or made.
    #[error("wrapping key {}: {source}", file.display())]
    File { file: PathBuf, source: std::io::Error },
    /// The file holds something else.
    #[error("wrapping key {}: holds {found} bytes; a key has {KEY_BYTES}", file.display())]
    Length { file: PathBuf, found: usize },
    /// Others could read it.
    #[error("wrapping key {}: has mode {mode:o}; nobody but its owner may read it (chmod 600)", file.display())]
    Mode { file: PathBuf, mode: u32 },
    /// The wrong key, or a changed text.
    #[error("the sealed key cannot be opened: the wrapping key is another one, or the database was changed")]
    Open,
    /// Encryption failed.
    #[error("cannot seal the key")]
    Seal,
}

impl WrappingKey {
    /// From its bytes.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(RandomizedNonceKey::new(&AES_256_GCM, bytes).expect("the key has the algorithm's length"))
    }

    /// Reads the key of `file`.
    pub fn open(file: &Path) -> Result<Self, SealFault> {
        let wrong = |source| SealFault::File { file: file.to_owned(), source };
        let mode = std::fs::metadata(file).map_err(wrong)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SealFault::Mode { file: file.to_owned(), mode });
        }
        let bytes = std::fs::read(file).map_err(wrong)?;
        let found = bytes.len();
        let bytes = bytes.try_into().map_err(|_| SealFault::Length { file: file.to_owned(), found })?;
        Ok(Self::from_bytes(&bytes))
    }

    /// Reads the key of `file`, or makes one there that only its owner can read.
    pub fn open_or_create(file: &Path) -> Result<Self, SealFault> {
        let wrong = |source| SealFault::File { file: file.to_owned(), source };
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(wrong)?;
        }
        if file.exists() {
            return Self::open(file);
        }
        let (mut bytes, mut name) = ([0; KEY_BYTES], [0; 8]);
        for random in [&mut bytes[..], &mut name[..]] {
            aws_lc_rs::rand::fill(random).map_err(|_| SealFault::Seal)?;
        }
        // Written beside and linked into place, so that nobody finds half a key; of several that try, one succeeds.
        let beside = file.with_extension(format!("{:016x}", u64::from_le_bytes(name)));
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
        let written = made.and_then(|mut made| made.write_all(&bytes).and_then(|()| made.sync_all()));
        let linked = written.and_then(|()| std::fs::hard_link(&beside, file));
        let removed = std::fs::remove_file(&beside);
        match linked {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            linked => linked.and(removed).map_err(wrong)?,
        }
        Self::open(file)
    }

    /// Seals `key`, together with `belongs_to`.
    pub fn seal(&self, key: &[u8], belongs_to: &[u8]) -> Result<Vec<u8>, SealFault> {
        let mut ciphertext = key.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(belongs_to), &mut ciphertext)
            .map_err(|_| SealFault::Seal)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut ciphertext);
        Ok(sealed)
    }

    /// Opens what [`Self::seal`] made of a key of the same `belongs_to`.
    pub fn unseal(&self, sealed: &[u8], belongs_to: &[u8]) -> Result<Vec<u8>, SealFault> {
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealFault::Open)?;
        let mut key = ciphertext.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_in_place(nonce, Aad::from(belongs_to), &mut key);
        let length = opened.map_err(|_| SealFault::Open)?.len();
        key.truncate(length);
        Ok(key)
    }
}

impl fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappingKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_owner_open_a_seal() {
        let key = WrappingKey::from_bytes(&[7; 32]);
        let sealed = key.seal(b"secret", b"root 1").unwrap();
        assert!(!sealed.windows(6).any(|bytes| bytes == b"secret"));
        assert_eq!(key.unseal(&sealed, b"root 1").unwrap(), b"secret");
        assert!(matches!(key.unseal(&sealed, b"root 2"), Err(SealFault::Open)));
        assert!(matches!(WrappingKey::from_bytes(&[8; 32]).unseal(&sealed, b"root 1"), Err(SealFault::Open)));
        for end in 0..sealed.len() {
            assert!(key.unseal(&sealed[..end], b"root 1").is_err(), "{end}");
        }
        assert_ne!(sealed, key.seal(b"secret", b"root 1").unwrap(), "a nonce is never used twice");
    }

    #[test]
    fn a_key_file_is_private_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca/wrapping.key");
        let sealed = WrappingKey::open_or_create(&file).unwrap().seal(b"secret", b"").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(WrappingKey::open_or_create(&file).unwrap().unseal(&sealed, b"").unwrap(), b"secret");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(WrappingKey::open(&file).unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&file, b"short").unwrap();
        assert!(WrappingKey::open(&file).unwrap_err().to_string().contains("holds 5 bytes"));
    }

    #[test]
    fn several_that_start_at_once_have_one_key() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..200 {
            let file = folder.path().join(format!("{round}.key"));
            let together = std::sync::Barrier::new(4);
            let sealed: Vec<_> = std::thread::scope(|scope| {
                let one = || {
                    together.wait();
                    WrappingKey::open_or_create(&file).unwrap().seal(b"secret", b"").unwrap()
                };
                let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            let key = WrappingKey::open(&file).unwrap();
            assert!(sealed.iter().all(|sealed| key.unseal(sealed, b"").is_ok()));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 200, "nothing is left beside");
    }
}
