//! A certificate authority.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// Certificate authority of one test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's certificate.
    pub pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes a certificate for the host `name` to `<folder>/<file>.pem`, and its key to `<folder>/<file>.key`.
    pub fn write_certificate(&self, folder: &Path, file: &str, name: &str) {
        self.write(folder, file, CertificateParams::new([name.to_owned()]).unwrap());
    }

    /// Writes a certificate as [`Self::write_certificate`] does, which expired in 2020.
    pub fn write_expired_certificate(&self, folder: &Path, file: &str, name: &str) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(2020, 1, 1);
        self.write(folder, file, params);
    }

    /// Writes a self-signed certificate for the host `name` that is a CA, as `openssl req -x509` creates it.
    pub fn write_self_signed_authority(folder: &Path, file: &str, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(folder.join(file).with_extension("pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(folder.join(file).with_extension("key"), key.serialize_pem()).unwrap();
    }

    fn write(&self, folder: &Path, file: &str, params: CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(folder.join(file).with_extension("pem"), certificate.pem()).unwrap();
        let path = folder.join(file).with_extension("key");
        fs::write(&path, key.serialize_pem()).unwrap();
        // The service warns of a key that everybody may read.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}
