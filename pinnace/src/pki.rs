//! The target's small certificate authority, and the TLS of both ends.
//!
//! The target signs a certificate for itself and one for each machine that enrols with a token.
//! A machine is known by the fingerprint of its certificate, which the target keeps on record; the
//! token carries the fingerprint of the authority, so that the very first connection is already
//! sure of its peer.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, pem::PemObject as _,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};

/// The name in every target's certificate. Targets are told apart by their authority, not by name.
pub(crate) const TARGET_NAME: &str = "target.pinnace";
/// The application protocol of replication.
pub(crate) const ALPN_DATA: &[u8] = wire::ALPN_DATA;
/// The application protocol of enrolment, the only one that needs no client certificate.
pub(crate) const ALPN_ENROLL: &[u8] = wire::ALPN_ENROLL;

const DAY: Duration = Duration::from_secs(86_400);
const CA_LIFETIME: Duration = Duration::from_secs(86_400 * 3650);
/// How long certificates of targets and machines are good for.
pub(crate) const LIFETIME: Duration = Duration::from_secs(86_400 * 825);

/// SHA-256 of a certificate's DER.
pub(crate) type Fingerprint = [u8; 32];

/// The fingerprint of a certificate.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    Sha256::digest(certificate).into()
}

/// A certificate chain, the end entity's first, and its private key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads `NAME.pem` and `NAME.key` in `dir`.
    pub(crate) fn read(dir: &Path, name: &str) -> Result<Self> {
        let key = dir.join(format!("{name}.key"));
        let chain = read_chain(dir, name)?;
        let key = PrivateKeyDer::from_pem_file(&key)
            .with_context(|| format!("reading the key {}", key.display()))?;
        Ok(Self { chain, key })
    }
}

fn read_chain(dir: &Path, name: &str) -> Result<Vec<CertificateDer<'static>>> {
    let chain = dir.join(format!("{name}.pem"));
    CertificateDer::pem_file_iter(&chain)
        .and_then(Iterator::collect)
        .with_context(|| format!("reading the certificate {}", chain.display()))
}

/// The authority of one target.
pub(crate) struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority and the target's own certificate, as `ca` and `target` in `dir`.
    pub(crate) fn create(dir: &Path, target: &str) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let key = KeyPair::generate()?;
        let mut params = params(&format!("Pinnace target {target}"), CA_LIFETIME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = params.self_signed(&key)?;
        write_identity(dir, "ca", &[ca.der().clone()], &key.serialize_pem())?;
        Self::read(dir)?.issue_target(dir)
    }

    /// Reads the authority in `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let pem = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let certificate = CertificateDer::from_pem_slice(pem("ca.pem")?.as_bytes())?;
        let key = KeyPair::from_pem(&pem("ca.key")?)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { certificate, issuer })
    }

    fn issue_target(&self, dir: &Path) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = params(TARGET_NAME, LIFETIME);
        params.subject_alt_names = vec![rcgen::SanType::DnsName(TARGET_NAME.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = [certificate.der().clone(), self.certificate.clone()];
        write_identity(dir, "target", &chain, &key.serialize_pem())
    }

    /// Signs a machine's request. Only the request's key is taken over, nothing it says of itself.
    pub(crate) fn issue_machine(
        &self,
        request: &[u8],
        machine: &str,
        lifetime: Duration,
    ) -> Result<Vec<CertificateDer<'static>>> {
        let request = CertificateSigningRequestDer::from(request);
        let mut request = CertificateSigningRequestParams::from_der(&request)?;
        request.params = params(machine, lifetime);
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = request.signed_by(&self.issuer)?;
        Ok(vec![certificate.der().clone(), self.certificate.clone()])
    }

    /// What a token carries, so that a machine knows this target at first sight.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.certificate)
    }

    /// The TLS of the target: both protocols, client certificates of this authority.
    pub(crate) fn server_config(&self, identity: Identity) -> Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(roots(&self.certificate)?);
        // Enrolment comes without a certificate; the data protocol checks that there is one.
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .allow_unauthenticated()
            .build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(identity.chain, identity.key)?;
        config.alpn_protocols = vec![ALPN_DATA.to_vec(), ALPN_ENROLL.to_vec()];
        Ok(config)
    }
}

/// A machine's new key and the request to sign it: `(key as PEM, request as DER)`.
pub(crate) fn machine_request(machine: &str) -> Result<(String, Vec<u8>)> {
    let key = KeyPair::generate()?;
    let request = params(machine, LIFETIME).serialize_request(&key)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

/// The TLS of an enrolled agent.
pub(crate) fn agent_config(
    identity: Identity,
    ca: &CertificateDer<'static>,
) -> Result<ClientConfig> {
    let mut config = client_builder()?
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(identity.chain, identity.key)?;
    config.alpn_protocols = vec![ALPN_DATA.to_vec()];
    Ok(config)
}

/// The TLS of a machine that enrols: it knows its target by the authority's fingerprint alone.
pub(crate) fn enroll_config(ca: Fingerprint) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = client_builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned::PinnedAuthority::new(ca, provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_ENROLL.to_vec()];
    Ok(config)
}

mod pinned;

/// When a certificate stops being good, in seconds since 1970.
pub(crate) fn expiry(certificate: &CertificateDer<'_>) -> Result<i64> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| anyhow!("a certificate that can't be read: {error}"))?;
    Ok(parsed.validity().not_after.timestamp())
}

/// When the certificate `NAME.pem` in `dir` stops being good, in seconds since 1970. Its key is not
/// read.
pub(crate) fn expiry_of(dir: &Path, name: &str) -> Result<i64> {
    let chain = read_chain(dir, name)?;
    expiry(chain.first().context("a certificate file without a certificate")?)
}

/// The common name of a certificate's subject.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Result<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| anyhow!("a certificate that can't be read: {error}"))?;
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    name.map(str::to_owned).context("a certificate without a name")
}

/// Writes `NAME.pem` and, for its owner only, `NAME.key`.
pub(crate) fn write_identity(
    dir: &Path,
    name: &str,
    chain: &[CertificateDer<'_>],
    key_pem: &str,
) -> Result<()> {
    write_private(&dir.join(format!("{name}.key")), key_pem.as_bytes())?;
    write_certificate(dir, name, chain)
}

/// Writes `NAME.pem`.
pub(crate) fn write_certificate(
    dir: &Path,
    name: &str,
    chain: &[CertificateDer<'_>],
) -> Result<()> {
    let pem: String = chain.iter().map(|der| to_pem("CERTIFICATE", der)).collect();
    let path = dir.join(format!("{name}.pem"));
    fs::write(&path, pem).with_context(|| format!("writing {}", path.display()))
}

/// Writes a file of mode 0600, replacing what was there at once.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        match path.parent() {
            Some(dir) => fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    write().with_context(|| format!("writing {}", path.display()))
}

fn client_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?)
}

fn roots(ca: &CertificateDer<'static>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    Ok(roots)
}

fn params(name: &str, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    // A day back: the peer's clock may be behind.
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + lifetime).into();
    params
}

fn to_pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
