//! Keys: the data key of a disk, and the session keys derived from it.
//!
//! A data key lives as long as the disk is protected. It never encrypts anything itself: every
//! [`Sealer`](crate::Sealer) derives its own key from it with a salt of its own, so that the
//! counter of nonces can start at zero in each of them (promise 9).

use blocks::{DiskId, Generation};
use hkdf::Hkdf;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::frame::{CheckedFrame, NONCE_LEN, SessionSalt, TAG_LEN};
use crate::secret::Secret;

/// The key of one disk: 256 random bits.
pub type DataKey = Secret<32>;

/// What the derivation of a session key is for; changing a frame's encryption changes this.
const SESSION_INFO: &[u8] = b"pinnace session v1";

/// The key of one session, and the only place that knows the cipher: AES-256-GCM, as *ring* has it.
/// The processor's instructions for it are used where it has them. Which nonce belongs to which
/// frame is the [`Sealer`](crate::Sealer)'s to know, hence ring's less safe interface.
pub(crate) struct SessionKey(LessSafeKey);

/// A tag that does not match.
pub(crate) struct NotAuthentic;

impl SessionKey {
    /// The key that [`session_bytes`] derives.
    pub(crate) fn derive(
        key: &DataKey,
        salt: &SessionSalt,
        disk: DiskId,
        generation: Generation,
    ) -> Self {
        let session = session_bytes(key, salt, disk, generation);
        let session = UnboundKey::new(&AES_256_GCM, session.as_slice());
        Self(LessSafeKey::new(session.expect("a key of 256 bits")))
    }

    /// Encrypts `data` in place, and returns its tag.
    pub(crate) fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        additional: &[u8],
        data: &mut [u8],
    ) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.0.seal_in_place_separate_tag(nonce, Aad::from(additional), data);
        let tag = sealed.expect("a frame is shorter than AES-GCM's limit of 64 GiB");
        tag.as_ref().try_into().expect("a tag of 128 bits")
    }

    /// Decrypts the data of a frame into `plain`, which is made as long; nothing of it is there
    /// when the tag does not match.
    pub(crate) fn open(
        &self,
        frame: &CheckedFrame,
        plain: &mut Vec<u8>,
    ) -> Result<(), NotAuthentic> {
        let nonce = Nonce::assume_unique_for_key(frame.header().nonce());
        let (additional, tag) = (Aad::from(frame.additional_data()), (*frame.tag()).into());
        plain.clear();
        plain.extend_from_slice(frame.ciphertext());
        let opened = self.0.open_in_place_separate_tag(nonce, additional, tag, plain, 0..);
        match opened.map(drop) {
            Ok(()) => Ok(()),
            Err(ring::error::Unspecified) => {
                plain.clear();
                Err(NotAuthentic)
            }
        }
    }
}

/// HKDF-SHA256 of the data key with the salt, bound to the disk and generation.
fn session_bytes(
    key: &DataKey,
    salt: &SessionSalt,
    disk: DiskId,
    generation: Generation,
) -> Zeroizing<[u8; DataKey::LEN]> {
    let mut session = Zeroizing::new([0; DataKey::LEN]);
    Hkdf::<Sha256>::new(Some(&salt.0), key.expose())
        .expand_multi_info(&[SESSION_INFO, &disk.0, &generation.0], session.as_mut_slice())
        .expect("32 bytes are less than 255 hashes");
    session
}

#[cfg(test)]
mod tests {
    use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A second implementation, which shares no code with the first.
        #[test]
        fn the_cipher_is_that_of_the_aes_gcm_crate(
            data in prop::collection::vec(any::<u8>(), 0..2000),
            additional in prop::collection::vec(any::<u8>(), 0..200),
            (key, salt, nonce) in any::<([u8; 32], [u8; 16], [u8; NONCE_LEN])>(),
        ) {
            let (key, salt) = (DataKey::from_bytes(key), SessionSalt(salt));
            let (disk, generation) = (DiskId([1; 16]), Generation([2; 16]));
            let mut sealed = data.clone();
            let ours = SessionKey::derive(&key, &salt, disk, generation);
            let tag = ours.seal(nonce, &additional, &mut sealed);

            let theirs = Aes256Gcm::new(&(*session_bytes(&key, &salt, disk, generation)).into());
            let mut expected = data;
            let expected_tag = theirs
                .encrypt_inout_detached(&nonce.into(), &additional, expected.as_mut_slice().into())
                .unwrap();
            prop_assert_eq!((sealed, tag), (expected, <[u8; TAG_LEN]>::from(expected_tag)));
        }
    }
}
