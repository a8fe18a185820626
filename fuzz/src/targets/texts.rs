//! Short texts that are typed, pasted, or found in names and small files: tokens, identities,
//! ladders of retention, cursors, plans of the initramfs.

use blocks::DiskId;
use control::Ladder;
use replica::ScrubCursor;
use tracker::last::Plan;
use wire::{Secret, Token, TokenId};

use crate::mend;

pub(crate) fn run(bytes: &[u8]) {
    token(bytes);
    if let Some(bytes) = bytes.first_chunk::<{ Token::LEN }>() {
        let mut mended = *bytes;
        mend::tail(&mut mended);
        token(&mended);
    }
    if let Ok(text) = str::from_utf8(bytes) {
        shows_as_itself::<DiskId>(text);
        shows_as_itself::<Ladder>(text);
        shows_as_itself::<ScrubCursor>(text);
        shows_as_itself::<Plan>(text);
    }
}

fn token(bytes: &[u8]) {
    if let Ok(token) = Token::from_bytes(bytes) {
        assert_eq!(token.to_bytes().as_slice(), bytes);
    }
}

/// What was parsed is the same after it was shown and parsed once more.
fn shows_as_itself<T>(text: &str)
where
    T: std::str::FromStr<Err: std::fmt::Debug> + ToString + PartialEq + std::fmt::Debug,
{
    let Ok(value) = text.parse::<T>() else { return };
    let again = value.to_string().parse::<T>().expect("what is shown can be parsed");
    assert_eq!(again, value, "from {text:?}");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let token =
        Token { id: TokenId([1; 8]), secret: Secret::from_bytes([2; 16]), ca_sha256: [3; 32] };
    let texts = [
        "all 2h, 1h 24h, 1d 15d",
        "17:4294967295",
        "00112233445566778899aabbccddeeff",
        "# a plan\n00112233445566778899aabbccddeeff 1048576\n",
    ];
    let texts = texts.map(|text| text.as_bytes().to_vec());
    texts.into_iter().chain([token.to_bytes().to_vec()]).collect()
}
