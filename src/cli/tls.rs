//! `conveyor tls`: a certificate of the box's own, for a network on which nobody else makes them.
//!
//! An authority is made once, and clients come to trust it; each further call makes a new certificate of the same
//! authority, which a running appliance takes up by itself.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use jiff::{Span, Zoned};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

const AUTHORITY_YEARS: i64 = 20;
/// The most that Apple's systems take of an authority that was added by hand (support.apple.com/102028).
const CERTIFICATE_DAYS: i64 = 820;

#[derive(Debug, Args)]
pub struct Tls {
    /// Where the files go; what is there of an earlier call is used again.
    #[arg(long, value_name = "DIR", default_value = "tls")]
    dir: PathBuf,
    /// Further names and addresses that clients call this box by, besides its host name and its own addresses.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
}

pub fn run(asked: &Tls) -> anyhow::Result<ExitCode> {
    let dir = &asked.dir;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let dir = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let names = names(&host, &asked.names)?;
    let authority = authority(&dir, &host)?;

    let key = KeyPair::generate().context("no key could be made")?;
    let mut params = CertificateParams::new(names.clone()).context("a name is none that a certificate can have")?;
    params.distinguished_name = called(names.first().map_or("conveyor", String::as_str));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, Span::new().days(CERTIFICATE_DAYS))?;
    let certificate = params.signed_by(&key, &authority).context("the certificate could not be made")?;
    // The key first: an appliance that looks in between finds that they do not go together, and looks again.
    write(&dir.join("key.pem"), &key.serialize_pem(), 0o600)?;
    write(&dir.join("certificate.pem"), &certificate.pem(), 0o644)?;

    let shown = |name: &str| dir.join(name).display().to_string();
    println!("A certificate for {}, good for {CERTIFICATE_DAYS} days. In the configuration:\n", names.join(", "));
    println!("[tls]\ncertificate = {:?}\nkey = {:?}\n", shown("certificate.pem"), shown("key.pem"));
    println!(
        "Let clients trust {}; `conveyor executions` and AWS clients take it as --ca and AWS_CA_BUNDLE.",
        shown("authority.pem")
    );
    println!("Keep {} to yourself: whoever has it can pose as any site to those clients.", shown("authority-key.pem"));
    println!("Call this again to renew: a running appliance takes the new certificate up by itself.");
    Ok(ExitCode::SUCCESS)
}

/// What clients call this box by.
fn names(host: &str, more: &[String]) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    if !host.is_empty() {
        names.push(host.to_owned());
        if !host.contains('.') {
            names.push(format!("{host}.local"));
        }
    }
    names.push("localhost".to_owned());
    let of_links = nix::ifaddrs::getifaddrs().context("the box's addresses cannot be read")?;
    let own = of_links.filter_map(|link| {
        let address = link.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    // Of the addresses of a link alone no certificate speaks: they are told apart by its number.
    let is_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80);
    names.extend(own.filter(|ip| !is_local(ip)).map(|ip| ip.to_string()));
    names.extend(more.iter().cloned());
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

/// The authority of an earlier call, or a new one.
fn authority(dir: &Path, host: &str) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let (file, key_file) = (dir.join("authority.pem"), dir.join("authority-key.pem"));
    if file.exists() {
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let of = || format!("{} is no authority that was made here; choose another --dir", file.display());
        let key = KeyPair::from_pem(&read(&key_file)?).with_context(of)?;
        return Issuer::from_ca_cert_pem(&read(&file)?, key).with_context(of);
    }
    let key = KeyPair::generate().context("no key could be made")?;
    let mut params = CertificateParams::default();
    params.distinguished_name = called(&format!("Conveyor on {}", if host.is_empty() { "this box" } else { host }));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, Span::new().years(AUTHORITY_YEARS))?;
    let certificate = params.self_signed(&key).context("the authority could not be made")?;
    write(&key_file, &key.serialize_pem(), 0o600)?;
    write(&file, &certificate.pem(), 0o644)?;
    Ok(Issuer::new(params, key))
}

fn called(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::CommonName, name);
    all
}

/// From yesterday on, since clocks differ.
fn valid_for(params: &mut CertificateParams, span: Span) -> anyhow::Result<()> {
    let from = Zoned::now().yesterday()?;
    let until = from.checked_add(span)?;
    let day = |at: &Zoned| date_time_ymd(at.year().into(), at.month().unsigned_abs(), at.day().unsigned_abs());
    (params.not_before, params.not_after) = (day(&from), day(&until));
    Ok(())
}

/// Whole or not at all: an appliance may be reading it.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let _ = fs::remove_file(&part);
    // Made as root, the files are still for the user whose folder it is.
    let owner = path.parent().and_then(|dir| fs::metadata(dir).ok()).map(|dir| (dir.uid(), dir.gid()));
    let owned = |file: &fs::File| match owner {
        Some((uid, gid)) if nix::unistd::geteuid().is_root() => fchown(file, Some(uid), Some(gid)),
        _ => Ok(()),
    };
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&part)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| owned(&file)).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&part, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}
