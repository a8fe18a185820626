//! Clients of other machines: TLS with certificates on both sides.

use std::path::Path;

use nbd::{Limits, Listen, Listener, Server, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::rig::{Rig, attempt, named, run, text};

/// Writes an authority, and what it made for a server and a client, under the names that GnuTLS's
/// users expect them by.
fn make_certificates(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(directory.join("ca-cert.pem"), authority.pem()).unwrap();
    for role in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(directory.join(format!("{role}-cert.pem")), certificate.pem()).unwrap();
        std::fs::write(directory.join(format!("{role}-key.pem")), key.serialize_pem()).unwrap();
    }
}

fn tls(directory: &Path) -> Tls {
    let file = |name| directory.join(name);
    let (chain, key) = (file("server-cert.pem"), file("server-key.pem"));
    Tls::from_files(&chain, &key, &file("ca-cert.pem")).unwrap()
}

#[test]
fn with_certificates_on_both_sides_any_address_will_do() {
    let rig = Rig::new();
    let ours = rig.path("ours");
    make_certificates(&ours);
    let listen = Listen::Tcp("0.0.0.0:0".parse().unwrap());
    let exports = vec![named(rig.raw())];
    let listener = Listener::bind(&listen, Some(tls(&ours))).unwrap();
    let server = Server::start(listener, exports, Limits::default()).unwrap();
    let Listen::Tcp(address) = server.address() else { panic!("{server:?}") };
    let port = address.port();
    let uri = |certificates: &Path| {
        format!("nbds://localhost:{port}/vda?tls-certificates={}", text(certificates))
    };
    let copy = rig.path("copy.raw");
    run("nbdcopy", &[&uri(&ours), text(&copy)]);
    assert!(std::fs::read(&copy).unwrap() == rig.content());

    let (told, words) = attempt("nbdinfo", &[&format!("nbd://localhost:{port}/vda")]);
    assert!(!told, "without TLS it was told: {words}");
    // Certificates of an authority that is not ours, but for the one by which the server is known.
    let theirs = rig.path("theirs");
    make_certificates(&theirs);
    std::fs::copy(ours.join("ca-cert.pem"), theirs.join("ca-cert.pem")).unwrap();
    let (told, words) = attempt("nbdinfo", &[&uri(&theirs)]);
    assert!(!told, "a stranger was told: {words}");
    run("nbdinfo", &[&uri(&ours)]);
    server.stop();
}
