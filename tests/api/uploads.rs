//! Uploads by tus: cut off and gone on with, given up, and never in two hands at once.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conveyor_testing::api::Appliance;
use futures::StreamExt as _;
use reqwest::{Body, Method, Response};
use tokio::sync::mpsc;

/// Pieces of a body that wait to be sent.
const PIECES_MAX: usize = 4;

struct Upload<'a> {
    appliance: &'a Appliance,
    url: String,
}

impl Upload<'_> {
    async fn begin<'a>(appliance: &'a Appliance, name: &str, bytes: u64) -> Upload<'a> {
        let encoded = |text: &str| STANDARD.encode(text);
        let metadata = format!("filename {},share {},folder {}", encoded(name), encoded("incoming"), encoded("day 1"));
        let request = appliance.client.post(format!("{}/api/v1/uploads", appliance.url()));
        let request = request.header("upload-length", bytes).header("upload-metadata", metadata);
        let begun = request.send().await.unwrap();
        assert_eq!(begun.status(), 201);
        let place = begun.headers()["location"].to_str().unwrap().to_owned();
        Upload { appliance, url: format!("{}{place}", appliance.url()) }
    }

    async fn send(&self, method: Method) -> Response {
        self.appliance.client.request(method, &self.url).send().await.unwrap()
    }

    async fn go_on(&self, at: u64, body: impl Into<Body>) -> Result<Response, reqwest::Error> {
        let request = self.appliance.client.patch(&self.url).header("upload-offset", at);
        request.header("content-type", "application/offset+octet-stream").body(body).send().await
    }

    async fn offset(&self) -> u64 {
        let answer = self.send(Method::HEAD).await;
        assert_eq!(answer.status(), 200);
        answer.headers()["upload-offset"].to_str().unwrap().parse().unwrap()
    }
}

/// A body whose pieces come when they are sent, and which never ends by itself.
fn slow() -> (mpsc::Sender<&'static str>, Body) {
    let (pieces, taken) = mpsc::channel(PIECES_MAX);
    let pieces_of = futures::stream::unfold(taken, |mut taken: mpsc::Receiver<&'static str>| async {
        Some((taken.recv().await?, taken))
    });
    (pieces, Body::wrap_stream(pieces_of.map(Ok::<_, std::io::Error>)))
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_off_is_gone_on_with() {
    let appliance = Appliance::start(&[]).await;
    let upload = Upload::begin(&appliance, "clip.mp4", 9).await;
    let (pieces, body) = slow();
    let writes = upload.go_on(0, body);
    let meanwhile = async {
        pieces.send("abc").await.unwrap();
        until("it is sent", async || pieces.capacity() == PIECES_MAX).await;
        until("somebody writes", async || {
            // At no offset that would be right, if it came first after all.
            let other = upload.go_on(7, "x").await.unwrap();
            assert_eq!(other.status(), 409, "two never write at once");
            other.text().await.unwrap().contains("another request")
        })
        .await;
    };
    tokio::select! {
        _ = writes => panic!("the body has not ended"),
        () = meanwhile => {}
    }
    drop(pieces);
    // The request broke off: what came of it stays.
    until("the part has what came", async || upload.offset().await == 3).await;
    until("the writer let go", async || upload.go_on(3, "def").await.unwrap().status() == 204).await;
    assert_eq!(upload.go_on(3, "x").await.unwrap().status(), 409, "it is at 6");
    let whole = upload.go_on(6, "ghi").await.unwrap();
    assert_eq!(
        (whole.status().as_u16(), whole.headers()["x-conveyor-key"].to_str().unwrap()),
        (204, "day%201%2Fclip.mp4")
    );
    assert_eq!(std::fs::read(appliance.incoming.join("day 1/clip.mp4")).unwrap(), b"abcdefghi");
    assert_eq!(std::fs::read_dir(appliance.incoming.join("day 1")).unwrap().count(), 1, "no part is left");
    assert_eq!(upload.send(Method::HEAD).await.status(), 404);
    Upload::begin(&appliance, "empty.mp4", 0).await;
    assert_eq!(std::fs::read(appliance.incoming.join("day 1/empty.mp4")).unwrap(), b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_given_up_leaves_nothing() {
    let appliance = Appliance::start(&[]).await;
    let upload = Upload::begin(&appliance, "clip.mp4", 9).await;
    let (pieces, body) = slow();
    let writes = async {
        // Cut off, however the client sees that.
        upload.go_on(0, body).await.map(|answer| assert_eq!(answer.status(), 404))
    };
    let gives_up = async {
        pieces.send("abc").await.unwrap();
        until("it is sent", async || pieces.capacity() == PIECES_MAX).await;
        until("somebody writes", async || {
            upload.go_on(7, "x").await.unwrap().text().await.unwrap().contains("another request")
        })
        .await;
        let (one, two) = tokio::join!(upload.send(Method::DELETE), upload.send(Method::DELETE));
        for answer in [one, two] {
            assert!([204, 404].contains(&answer.status().as_u16()), "{}", answer.status());
        }
    };
    let (_, ()) = tokio::join!(writes, gives_up);
    assert_eq!(upload.send(Method::DELETE).await.status(), 404);
    assert_eq!(upload.go_on(0, "x").await.unwrap().status(), 404);
    assert_eq!(std::fs::read_dir(appliance.incoming.join("day 1")).unwrap().count(), 0, "no part is left");
    let health = appliance.client.get(format!("{}/healthz", appliance.url())).send().await.unwrap();
    assert_eq!(health.status(), 200);
}
