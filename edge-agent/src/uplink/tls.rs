//! TLS to servers: rustls with ring's cryptography, by name, whatever else is linked.
//!
//! Owns:     which certificates are trusted.
//! Does not: open connections.

use std::path::Path;
use std::sync::Arc;

use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

#[cfg(feature = "http")]
pub(super) use super::https::agent as http_agent;

/// What is trusted, and how.
pub(super) type Trusted = Arc<ClientConfig>;

/// Trusts what is in the file `ca`, in PEM, or else what the system trusts.
///
/// # Errors
/// Says in one line what is wrong with it.
pub(super) fn client(ca: Option<&Path>) -> Result<Trusted, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let wrong = |e: String| format!("read the certificates in {}: {e}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))? {
                let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
                roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("there is none; it must be PEM".to_owned()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err("the system trusts no certificate: install ca-certificates, or set ca".to_owned());
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|e| e.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// For the client library of MQTT.
pub(super) fn transport(trusted: &Trusted) -> Transport {
    Transport::Tls(TlsConfiguration::Rustls(Arc::clone(trusted)))
}
