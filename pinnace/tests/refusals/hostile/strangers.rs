//! Those who have no certificate: noise on the port, half handshakes, enrolments that are none.

use std::fs;
use std::net::UdpSocket;

use anyhow::{Result, ensure};

use super::attacker::Attacker;
use super::{attack, withstands};
use crate::stranger::Visitor;

#[test]
fn strangers_get_nowhere() -> Result<()> {
    withstands(|_| {
        vec![
            attack("noise in datagrams", |attacker| {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                let mut noise: u64 = 0x9e37_79b9_7f4a_7c15;
                for len in (1..1500).cycle().take(20_000) {
                    let datagram: Vec<u8> = std::iter::repeat_with(|| {
                        noise ^= noise << 13;
                        noise ^= noise >> 7;
                        noise ^= noise << 17;
                        noise.to_le_bytes()[0]
                    })
                    .take(len)
                    .collect();
                    socket.send_to(&datagram, attacker.site.listen)?;
                }
                attacker.is_welcome()
            }),
            attack("an enrolment of noise", |attacker| enrols_nobody(attacker, &[0xa5; 4096])),
            attack("an enrolment of 1 MiB", |attacker| enrols_nobody(attacker, &vec![0; 1 << 20])),
            attack("an enrolment without a token", |attacker| {
                let mut request = vec![0x48, 0, 0, 0, 0x01, 0x40];
                request.resize(0x4c, 0);
                enrols_nobody(attacker, &request)
            }),
            attack("a hundred visitors who say nothing", |attacker| {
                let visitors: Vec<_> =
                    (0..100).map(|_| Visitor::knock(attacker.site)).collect::<Result<_>>()?;
                attacker.is_welcome()?;
                drop(visitors);
                Ok(())
            }),
        ]
    })
}

/// Asks to be enrolled with these bytes, and must not be.
fn enrols_nobody(attacker: &Attacker<'_>, request: &[u8]) -> Result<()> {
    let known =
        || Ok::<_, anyhow::Error>(fs::read_dir(attacker.site.store().join("machines"))?.count());
    let before = known()?;
    ensure!(before > 0, "no machine is on record");
    let answer = Visitor::knock(attacker.site)?.ask(request)?;
    ensure!(answer.is_none_or(|answer| answer.get(4..6) == Some(&[0x02, 0xc0])), "enrolled");
    ensure!(known()? == before, "another machine is on record");
    attacker.is_welcome()
}
