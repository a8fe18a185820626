//! Keys: the data key of a disk, and the session keys derived from it.
//!
//! A data key lives as long as the disk is protected. It never encrypts anything itself: every
//! [`Sealer`](crate::Sealer) derives its own key from it with a salt of its own, so that the
//! counter of nonces can start at zero in each of them (promise 9).

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use blocks::{DiskId, Generation};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::frame::{CheckedFrame, NONCE_LEN, SessionSalt, TAG_LEN};
use crate::secret::Secret;

/// The key of one disk: 256 random bits.
pub type DataKey = Secret<32>;

/// What the derivation of a session key is for; changing a frame's encryption changes this.
const SESSION_INFO: &[u8] = b"pinnace session v1";

/// The key of one session, and the only place that knows the cipher: AES-256-GCM. The processor's
/// AES and carry-less multiplication instructions are used where it has them.
pub(crate) struct SessionKey(Aes256Gcm);

/// A tag that does not match.
pub(crate) struct NotAuthentic;

impl SessionKey {
    /// HKDF-SHA256 of the data key with the salt, bound to the disk and generation.
    pub(crate) fn derive(
        key: &DataKey,
        salt: &SessionSalt,
        disk: DiskId,
        generation: Generation,
    ) -> Self {
        let mut session = Zeroizing::new([0; DataKey::LEN]);
        Hkdf::<Sha256>::new(Some(&salt.0), key.expose())
            .expand_multi_info(&[SESSION_INFO, &disk.0, &generation.0], session.as_mut_slice())
            .expect("32 bytes are less than 255 hashes");
        Self(Aes256Gcm::new(&(*session).into()))
    }

    /// Encrypts `data` in place, and returns its tag.
    pub(crate) fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        additional: &[u8],
        data: &mut [u8],
    ) -> [u8; TAG_LEN] {
        let sealed = self.0.encrypt_inout_detached(&nonce.into(), additional, data.into());
        sealed.expect("a frame is shorter than AES-GCM's limit of 64 GiB").into()
    }

    /// Decrypts the data of a frame into `plain`, which is made as long; nothing of it is there
    /// when the tag does not match.
    pub(crate) fn open(
        &self,
        frame: &CheckedFrame,
        plain: &mut Vec<u8>,
    ) -> Result<(), NotAuthentic> {
        let (nonce, tag) = (frame.header().nonce().into(), (*frame.tag()).into());
        let ciphertext = frame.ciphertext();
        plain.resize(ciphertext.len(), 0);
        let buffer = InOutBuf::new(ciphertext, plain).expect("resized to the same length");
        let opened = self.0.decrypt_inout_detached(&nonce, frame.additional_data(), buffer, &tag);
        opened.map_err(|_| {
            plain.clear();
            NotAuthentic
        })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_processors_instructions_are_used() {
        let has_them = std::arch::is_x86_feature_detected!("aes");
        assert_eq!(aes_gcm::aes::hardware_accelerated(), has_them);
    }
}
