//! The served box over TLS: a certificate of its own, clients that trust it, and one that is renewed meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use conveyor_testing::served::{Served, folder};
use reqwest::header::{LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::tls::TlsInfo;
use reqwest::{Certificate, Client};
use serde_json::json;

const CONFIGURATION: &str = r#"
    data_dir = "data"
    listen = "127.0.0.1:0"
    [tls]
    certificate = "tls/certificate.pem"
    key = "tls/key.pem"
    [[credentials]]
    access_key_id = "AKIDOPS"
    secret_access_key = "a secret of some length"
"#;
/// The box looks at its files every 2 s.
const RENEWED_WITHIN: Duration = Duration::from_secs(30);

fn conveyor(arguments: &[&str], envs: &[(&str, &str)]) -> String {
    let output = Command::new(conveyor_testing::binary()).args(arguments).envs(envs.iter().copied()).output().unwrap();
    let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {shown}");
    shown
}

fn make_certificate(dir: &Path) {
    conveyor(&["tls", "--dir", dir.to_str().unwrap(), "--name", "box.example"], &[]);
}

/// A client that trusts the authority, and follows nobody elsewhere.
fn client(dir: &Path) -> Client {
    let authority = Certificate::from_pem(&std::fs::read(dir.join("authority.pem")).unwrap()).unwrap();
    // Each request by a connection of its own.
    let client = Client::builder().add_root_certificate(authority).redirect(Policy::none()).tls_info(true);
    client.pool_max_idle_per_host(0).build().unwrap()
}

/// By a client of its own: a session that is resumed shows the certificate that it began with.
async fn shown_certificate(dir: &Path, url: &str) -> Vec<u8> {
    let answer = client(dir).get(format!("{url}/healthz")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.extensions().get::<TlsInfo>().unwrap().peer_certificate().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_with_a_certificate_of_its_own_serves_who_trusts_it_and_renews_it_without_a_restart() {
    let dir = folder(CONFIGURATION);
    let tls = dir.path().join("tls");
    make_certificate(&tls);
    let served = Served::start(dir.path());
    let (plain, url) = (served.url(), format!("https://{}", served.address));
    let client = client(&tls);

    // Who does not trust it does not talk to it; who leaves the s out is told, and sends no password in the clear twice.
    Client::new().get(format!("{url}/healthz")).send().await.unwrap_err();
    let sent_on = client.get(format!("{plain}/workflows")).send().await.unwrap();
    assert_eq!(
        (sent_on.status().as_u16(), sent_on.headers()[LOCATION].to_str().unwrap()),
        (307, &*format!("{url}/workflows"))
    );
    assert_eq!(client.post(format!("{plain}/api/v1/session")).body("{}").send().await.unwrap().status(), 400);

    let sign_in = json!({"user": "AKIDOPS", "password": "a secret of some length"});
    let signed_in = client.post(format!("{url}/api/v1/session")).json(&sign_in).send().await.unwrap();
    let cookie = signed_in.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("__Host-conveyor_session=") && cookie.ends_with("; Secure"), "{cookie}");
    let shown = cookie.split(';').next().unwrap();
    let asked = client.get(format!("{url}/api/v1/overview")).header("cookie", shown).send().await.unwrap();
    assert_eq!(asked.status(), 200);

    let authority = tls.join("authority.pem").to_str().unwrap().to_owned();
    conveyor(
        &["executions", "list", "--url", &url, "--ca", &authority, "--user", "AKIDOPS:a secret of some length"],
        &[],
    );
    let python = conveyor_testing::root().join("target/venv/bin/python");
    if python.exists() {
        let script = format!(
            "import boto3\nc = boto3.client('stepfunctions', endpoint_url='{url}', region_name='us-east-1', \
             aws_access_key_id='AKIDOPS', aws_secret_access_key='a secret of some length', verify='{authority}')\n\
             assert c.list_state_machines()['ResponseMetadata']['HTTPStatusCode'] == 200"
        );
        let output = Command::new(python).args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    } else {
        assert!(std::env::var_os("CI").is_none(), "target/venv is missing: run `make test`");
    }

    let before = shown_certificate(&tls, &url).await;
    make_certificate(&tls);
    let until = Instant::now() + RENEWED_WITHIN;
    while shown_certificate(&tls, &url).await == before {
        assert!(Instant::now() < until, "the new certificate is not taken up");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // One that cannot be used costs nobody the box.
    std::fs::write(tls.join("certificate.pem"), "no certificate").unwrap();
    let until = Instant::now() + RENEWED_WITHIN;
    while !std::fs::read_to_string(dir.path().join("log")).unwrap().contains("former certificate") {
        assert!(Instant::now() < until, "nobody hears of a certificate that cannot be used");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shown_certificate(&tls, &url).await;
}

#[test]
fn an_address_that_others_reach_needs_tls_a_proxy_or_a_word() {
    let dir = folder("");
    let without = CONFIGURATION.replace("127.0.0.1:0", "0.0.0.0:0");
    let (head, rest) = without.split_once("[tls]").unwrap();
    let rest = &rest[rest.find("[[").unwrap()..];
    let serve = |text: String| {
        std::fs::write(dir.path().join("conveyor.toml"), text).unwrap();
        let mut command = Command::new(conveyor_testing::binary());
        command.args(["serve", "--config"]).arg(dir.path().join("conveyor.toml"));
        command
    };
    let refused = serve(format!("{head}{rest}")).output().unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("conveyor tls") && words.contains("plain"), "{words}");
    for said in ["plain = true", "proxies = [\"10.0.0.2\"]"] {
        std::fs::write(dir.path().join("conveyor.toml"), format!("{said}\n{head}{rest}")).unwrap();
        drop(Served::start(dir.path()));
    }
}
