//! Keys: the data key of a disk, and the session keys derived from it.
//!
//! A data key lives as long as the disk is protected. It never encrypts anything itself: every
//! [`Sealer`](crate::Sealer) derives its own key from it with a salt of its own, so that the
//! counter of nonces can start at zero in each of them (promise 9).

use aes_gcm::{Aes256Gcm, KeyInit};
use blocks::{DiskId, Generation};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::frame::SessionSalt;
use crate::secret::Secret;

/// The key of one disk: 256 random bits.
pub type DataKey = Secret<32>;

/// What the derivation of a session key is for; changing a frame's encryption changes this.
const SESSION_INFO: &[u8] = b"pinnace session v1";

/// The cipher of one session: HKDF-SHA256 with the salt, bound to the disk and generation.
pub(crate) fn session_cipher(
    key: &DataKey,
    salt: &SessionSalt,
    disk: DiskId,
    generation: Generation,
) -> Aes256Gcm {
    let mut session = Zeroizing::new([0; DataKey::LEN]);
    Hkdf::<Sha256>::new(Some(&salt.0), key.expose())
        .expand_multi_info(&[SESSION_INFO, &disk.0, &generation.0], session.as_mut_slice())
        .expect("32 bytes are less than 255 hashes");
    Aes256Gcm::new(&(*session).into())
}
